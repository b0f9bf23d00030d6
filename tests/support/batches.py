"""Batches in the states that tests begin with, and a worker's part in one call."""

from typing import Any

from apps.batches import feeding, services
from apps.batches.files import table_of
from apps.batches.models import Batch
from apps.batches.services import BatchInput
from apps.drafts import services as drafts
from apps.drafts.models import Draft, Job
from tests.support.cast import Newsroom
from tests.support.factories import MODEL, append_words


def a_dry_run(room: Newsroom, num_rows: int = 3, **settings: Any) -> Batch:
    rows = settings.pop("rows", None) or [
        {"subject": f"Ferry {n}", "words": "60"} for n in range(1, num_rows + 1)
    ]
    values: dict[str, Any] = {"name": "Ferries", "preset_id": room.preset.pk} | settings
    return services.create_batch(
        user=room.eli.user,
        project_id=room.project.pk,
        table=table_of(rows),
        batch=BatchInput(**values),
    )


def a_batch(room: Newsroom, num_rows: int = 3, **settings: Any) -> Batch:
    """A batch that has been started, and fed as the workers do it."""
    batch = services.start_batch(user=room.eli.user, batch_id=a_dry_run(room, num_rows, **settings).pk)
    feeding.feed(batch_id=batch.pk)
    return batch


def write_next(*, fails: bool = False) -> Draft:
    """One job written to its end as a worker does it."""
    job = Job.objects.claim_next(worker="worker-1")
    assert job is not None
    drafts.begin_writing(job=job, release_id=None, adapter_sha256="", model=MODEL)
    if fails:
        draft = drafts.fail_draft(job=job, reason="poison")
    else:
        append_words(job, "The ferry sails.")
        draft = drafts.finish_draft(job=job, finish_reason="end")
    feeding.feed_after(draft_id=draft.pk)
    return draft


def states(batch: Batch) -> list[str]:
    return list(batch.rows.values_list("state", flat=True))
