"""What is live writes the next draft; roll back brings back the very text of before."""

from pathlib import Path

import pytest

from apps.common.errors import Conflict
from apps.common.leases import ClockTimestamp, JobState
from apps.drafts.models import Draft, Job
from apps.tuning import services
from apps.tuning.gate import GateCheck
from apps.tuning.models import Adapter, Run
from inference import adapters
from tests.support.cast import Newsroom
from tests.support.factories import a_brief, a_claimed_run, a_queued_draft
from tests.workers.conftest import OpenEngine
from workers.engine import adapter_folder
from workers.generation import write, write_next

PASSED = GateCheck(name="effect", label="Effect", candidate=1.0, live=None, bar="more than 0", passed=True)


@pytest.fixture
def adapter(newsroom: Newsroom, home: Path) -> Adapter:
    """A sealed folder as a run leaves it, registered."""
    folder = home / "trained"
    folder.mkdir()
    for name in (adapters.CONFIG_NAME, adapters.WEIGHTS_NAME, adapters.GGUF_NAME):
        (folder / name).write_bytes(name.encode())
    manifest = adapters.seal(folder, base_sha256="b" * 64)
    run = a_claimed_run(newsroom)
    registered = services.register_adapter(
        run=run, folder=folder, sha256=manifest.sha256, base_sha256=manifest.base_sha256, checks=[PASSED]
    )
    again = services.register_adapter(
        run=run, folder=folder, sha256=manifest.sha256, base_sha256=manifest.base_sha256, checks=[PASSED]
    )
    assert again == registered
    return registered


def written(draft: Draft) -> Draft:
    write_next()
    draft.refresh_from_db()
    assert draft.state == "ready", draft.job.reason
    return draft


def test_promote_write_roll_back_write(newsroom: Newsroom, open_engine: OpenEngine, adapter: Adapter) -> None:
    open_engine()
    brief = a_brief(newsroom)
    before = written(a_queued_draft(newsroom, brief=brief))

    release = services.promote(user=newsroom.ada.user, adapter_id=adapter.pk)
    during = written(a_queued_draft(newsroom, brief=brief))
    services.roll_back(user=newsroom.ada.user, project_id=newsroom.project.pk)
    after = written(a_queued_draft(newsroom, brief=brief))

    assert (during.release, during.adapter_sha256) == (release, adapter.sha256)
    assert during.text != before.text
    assert (after.adapter_sha256, after.text.encode()) == ("", before.text.encode())


def test_a_draft_ends_with_the_release_it_began_with(
    newsroom: Newsroom, open_engine: OpenEngine, adapter: Adapter
) -> None:
    open_engine()
    brief = a_brief(newsroom)
    before = written(a_queued_draft(newsroom, brief=brief))
    draft = a_queued_draft(newsroom, brief=brief)
    Draft.objects.filter(pk=draft.pk).update(started_at=before.started_at)  # claimed once already

    services.promote(user=newsroom.ada.user, adapter_id=adapter.pk)

    assert written(draft).text == before.text
    assert draft.release is None


def test_a_release_counts_from_the_claim_and_not_from_the_request(
    newsroom: Newsroom, open_engine: OpenEngine, adapter: Adapter
) -> None:
    open_engine()
    draft = a_queued_draft(newsroom)

    services.promote(user=newsroom.ada.user, adapter_id=adapter.pk)

    assert written(draft).adapter_sha256 == adapter.sha256


def test_an_adapter_that_was_damaged_on_this_machine_is_fetched_again(
    newsroom: Newsroom, open_engine: OpenEngine, adapter: Adapter
) -> None:
    open_engine()
    services.promote(user=newsroom.ada.user, adapter_id=adapter.pk)
    (adapter_folder(adapter.sha256) / adapters.GGUF_NAME).write_bytes(b"damaged")
    job = Job.objects.filter(draft=a_queued_draft(newsroom)).claim_next(worker="worker-1")
    assert job is not None

    assert write(job) == "end"


def test_the_same_adapter_again_is_refused_with_a_reason(
    newsroom: Newsroom, home: Path, adapter: Adapter
) -> None:
    Run.objects.filter(pk=adapter.run_id).update(
        state=JobState.DONE, reason="done", finished_at=ClockTimestamp()
    )
    run = a_claimed_run(newsroom)

    with pytest.raises(Conflict) as refusal:
        services.register_adapter(
            run=run,
            folder=home / "trained",
            sha256=adapter.sha256,
            base_sha256=adapter.base_sha256,
            checks=[PASSED],
        )

    assert refusal.value.reason == "nothing_new"
    assert adapter.name in refusal.value.message
