"""check_invariants: a sound copy passes, and each invariant finds what violates it."""

import json
import os
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import call_command
from django.db import connection

from apps.common.leases import JobState
from apps.common.text import sha256
from apps.drafts.models import Draft
from apps.tuning import artifacts
from apps.tuning.models import NightlyRun, Release, ReleaseKind
from apps.tuning.services import start_nightly_run
from galley.invariants import INVARIANTS, Inputs, check_one
from galley.invariants.outside import num_sessions, usage
from tests.faults.viewers import write_lines
from tests.support.cast import Newsroom
from tests.support.factories import (
    a_claimed_job,
    a_draft,
    a_queued_draft,
    a_review,
    an_adapter,
    an_approval,
    append_words,
)

pytestmark = pytest.mark.django_db


def plant(statement: str, *values: str | int) -> None:
    """A change that the product and its triggers would refuse."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # what is still to be checked would hold the tables
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(statement, values)
        cursor.execute("SET LOCAL session_replication_role = DEFAULT")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def violations(name: str, inputs: Inputs | None = None) -> list[str]:
    found = check_one(name, inputs or Inputs())
    assert not found.not_applicable
    assert found.num_violations == len(found.violations)
    return found.violations


@pytest.fixture
def history(newsroom: Newsroom, home: Path) -> Newsroom:
    """A bit of everything that Galley keeps."""
    an_approval(newsroom)
    a_review(newsroom)
    append_words(a_claimed_job(newsroom), "One", " two")
    a_queued_draft(newsroom)
    path = home / "adapter.bin"
    path.write_bytes(b"weights")
    artifact = artifacts.put(path, kind="adapter")
    an_adapter(newsroom, files={"adapter.bin": artifact.sha256})
    start_nightly_run(project=newsroom.project, local_date=Draft.objects.latest("pk").created_at.date())
    return newsroom


@pytest.mark.parametrize("name", INVARIANTS)
def test_a_sound_copy_violates_none(name: str, history: Newsroom) -> None:
    found = check_one(name, Inputs())
    assert found.holds, found.violations
    assert found.num_rows or found.not_applicable


def test_the_command_ends_with_1_and_says_what_is_wrong(history: Newsroom) -> None:
    out = StringIO()
    call_command("check_invariants", "--json", stdout=out)
    assert [found["name"] for found in json.loads(out.getvalue())] == list(INVARIANTS)

    draft = a_draft(history)
    plant("UPDATE drafts_draft SET last_seq = 9 WHERE id = %s", draft.pk)
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("check_invariants", stdout=out)
    assert ended.value.code == 1
    assert "N3   chunks are numbered" in out.getvalue()
    assert f"draft {draft.pk} counts 9 chunks" in out.getvalue()


def test_only_the_first_violations_are_listed(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    for attempt in range(2, 32):
        plant(
            "INSERT INTO drafts_chunk (draft_id, attempt, seq, text, token_ids)"
            " VALUES (%s, %s, 2, 'x', '{}')",
            *(job.draft_id, attempt),
        )
    found = check_one("N3", Inputs())
    assert (found.num_violations, len(found.violations)) == (60, 20)


# --- rows --------------------------------------------------------------------------------------


def test_n2_finds_a_job_that_does_not_end(newsroom: Newsroom) -> None:
    draft = a_queued_draft(newsroom)
    assert not violations("N2")
    assert "is still queued" in violations("N2", Inputs(idle=True))[0]
    past = (
        "UPDATE drafts_job SET created_at = now() - interval '2 hours', run_at = now() - interval '2 hours'"
    )
    plant(f"{past} WHERE draft_id = %s", draft.pk)
    assert not violations("N2", Inputs(deadline_s=7300))
    assert len(violations("N2", Inputs(deadline_s=7100))) == 1


def test_n2_finds_a_lease_that_nobody_took_back(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    plant("UPDATE drafts_job SET lease_until = now() - interval '2 minutes' WHERE id = %s", job.pk)
    assert f"drafts_job {job.pk} lost its lease" in violations("N2")[0]


def test_n2_finds_an_end_without_a_reason(newsroom: Newsroom) -> None:
    draft = a_draft(newsroom)
    plant("ALTER TABLE drafts_job DROP CONSTRAINT drafts_job_ended_has_reason")
    plant("UPDATE drafts_job SET finished_at = NULL WHERE draft_id = %s", draft.pk)
    assert "without saying when or why" in violations("N2")[0]


def test_n2_finds_a_draft_that_waits_for_a_job_that_is_over(newsroom: Newsroom) -> None:
    draft = a_draft(newsroom)
    plant("UPDATE drafts_draft SET state = 'writing' WHERE id = %s", draft.pk)
    assert f"draft {draft.pk} is writing but its job" in violations("N2")[0]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM drafts_chunk WHERE draft_id = %s AND seq = 1",
        "DELETE FROM drafts_chunk WHERE draft_id = %s AND seq = 2",
        "DELETE FROM drafts_chunk WHERE draft_id = %s",
        "UPDATE drafts_chunk SET token_ids = '{}' WHERE draft_id = %s AND seq = 2",
        "UPDATE drafts_draft SET last_seq = 2 WHERE id = %s",
        "UPDATE drafts_draft SET attempt = 0 WHERE id = %s",
    ],
)
def test_n3_finds_gaps_and_wrong_counts(damage: str, newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    append_words(job, "One", " two", " three")
    assert not violations("N3")
    plant(damage, job.draft_id)
    assert f"draft {job.draft_id} " in violations("N3")[0]


def test_n3_finds_a_chunk_twice(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    append_words(job, "One", " two")
    plant("ALTER TABLE drafts_chunk DROP CONSTRAINT chunk_seq_unique")
    plant("UPDATE drafts_chunk SET seq = 1 WHERE draft_id = %s", job.draft_id)
    assert f"draft {job.draft_id} attempt 1 has 2 chunks, 1 to 1" in violations("N3")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE drafts_chunk SET text = 'other' WHERE draft_id = %s",
        "UPDATE drafts_draft SET generated_text = 'other' WHERE id = %s",
        "UPDATE drafts_draft SET text = 'other' WHERE id = %s",
        "UPDATE drafts_revision SET text = 'other' WHERE draft_id = %s",
    ],
)
def test_n5_finds_a_text_that_is_not_its_chunks_or_its_hash(damage: str, newsroom: Newsroom) -> None:
    draft = a_draft(newsroom, text="Über alles – 文字")
    assert not violations("N5")
    plant(damage, draft.pk)
    assert f"draft {draft.pk} " in violations("N5")[0]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE reviews_review SET text = 'other' WHERE id = %s",
        "UPDATE reviews_review SET round = 2 WHERE id = %s",
        "UPDATE reviews_decision SET content_sha256 = repeat('0', 64) WHERE review_id = %s",
        "UPDATE reviews_decision SET text = 'other' WHERE review_id = %s",
        "DELETE FROM reviews_decision WHERE review_id = %s",
    ],
)
def test_n6_finds_a_decision_on_another_text(damage: str, newsroom: Newsroom) -> None:
    decision = an_approval(newsroom)
    assert not violations("N6")
    plant(damage, decision.pk)
    assert violations("N6")


def test_n6_finds_two_decisions_on_one_round(newsroom: Newsroom) -> None:
    decision = an_approval(newsroom)
    plant("ALTER TABLE reviews_decision DROP CONSTRAINT reviews_decision_pkey CASCADE")
    plant("INSERT INTO reviews_decision SELECT * FROM reviews_decision")
    assert f"review {decision.pk} of draft {decision.review.draft_id} has 2 decisions" in violations("N6")


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM audit_auditevent WHERE action = 'review.approve'",
        "UPDATE audit_auditevent SET action = 'review.approve' WHERE action = 'draft.submitted'",
        "DELETE FROM audit_auditevent WHERE action = 'nightly.skipped'",
        "UPDATE projects_membership SET role = 'admin' WHERE role = 'reviewer'",
        "UPDATE audit_auditevent SET data = '{}' WHERE action = 'brief.created'",
        "UPDATE audit_auditevent SET at = at - interval '1 day' WHERE action = 'nightly.skipped'",
    ],
)
def test_n7_finds_an_act_without_its_row_and_a_broken_chain(damage: str, history: Newsroom) -> None:
    assert not violations("N7")
    plant(damage)
    assert violations("N7")


def test_n7_finds_a_release_that_nobody_recorded(newsroom: Newsroom) -> None:
    release = Release.objects.create(
        project=newsroom.project, number=1, kind=ReleaseKind.PROMOTION, created_by=newsroom.ada.user
    )
    assert f"tuning_release {release.pk} has 0 rows in the trail" in violations("N7")


def test_n8_finds_two_nights_and_two_trainings(history: Newsroom) -> None:
    plant("ALTER TABLE tuning_nightlyrun DROP CONSTRAINT one_night_per_date")
    plant("DROP INDEX one_active_run_per_project")
    [night] = NightlyRun.objects.all()
    NightlyRun.objects.create(project=night.project, local_date=night.local_date)
    for _ in range(2):
        history.project.runs.create()
    assert len(violations("N8")) == 2


def test_n12_finds_an_adapter_that_is_not_the_pinned_one(newsroom: Newsroom) -> None:
    adapter = an_adapter(newsroom)
    release = Release.objects.create(
        project=newsroom.project,
        number=1,
        kind=ReleaseKind.PROMOTION,
        adapter=adapter,
        created_by=newsroom.ada.user,
    )
    draft = a_draft(newsroom)
    pin = "UPDATE drafts_draft SET release_id = %s, adapter_sha256 = %s WHERE id = %s"
    plant(pin, *(release.pk, adapter.sha256, draft.pk))
    assert not violations("N12")
    plant(pin, *(release.pk, "0" * 64, draft.pk))
    assert f"draft {draft.pk} names an adapter" in violations("N12")[0]
    plant(pin, *(release.pk, adapter.sha256, draft.pk))
    plant("UPDATE tuning_release SET project_id = %s", newsroom.foreign_project.pk)
    assert "release of project" in violations("N12")[0]
    plant("UPDATE drafts_draft SET release_id = NULL, adapter_sha256 = '', model_sha256 = ''")
    assert "names no model" in violations("N12")[0]


# --- files -------------------------------------------------------------------------------------


def _stored(home: Path) -> Path:
    [file] = [path for path in (home / "store").rglob("*") if path.is_file()]
    return file


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda file: file.write_bytes(b"WEIGHTS"), lambda file: file.write_bytes(b"w")]
)
def test_n9_finds_a_file_that_is_gone_or_damaged(
    damage: Callable[[Path], object], history: Newsroom, home: Path
) -> None:
    file = _stored(home)
    file.chmod(0o600)
    damage(file)
    assert f"artifact {file.name}" in violations("N9")[0]


def test_n9_finds_what_is_live_without_its_gate_or_its_files(history: Newsroom) -> None:
    adapter = an_adapter(history, gate_passed=False, files={"adapter.bin": "0" * 64})
    plant(
        "INSERT INTO tuning_release (project_id, number, kind, adapter_id, created_by_id, created_at)"
        " VALUES (%s, 1, 'promotion', %s, %s, now())",
        *(history.project.pk, adapter.pk, history.ada.user.pk),
    )
    assert len(violations("N9")) == 2


def test_n10_finds_a_file_that_nobody_registered_a_day_ago(history: Newsroom, home: Path) -> None:
    storage = storages["artifacts"]
    name = storage.save(f"sha256/ab/cd/{sha256('x')}", ContentFile(b"x"))
    assert not violations("N10")
    yesterday = (home / "store" / name).stat().st_mtime - 25 * 3600
    os.utime(home / "store" / name, (yesterday, yesterday))
    assert violations("N10") == [f"{name} is in the store and in no row"]


# --- outside -----------------------------------------------------------------------------------


def test_n1_finds_what_was_acknowledged_and_is_not_there(newsroom: Newsroom, tmp_path: Path) -> None:
    draft = a_draft(newsroom)
    kept = {"kind": "drafts.Draft", "id": draft.pk}
    journal = write_lines(tmp_path / "journal", [kept])
    assert not violations("N1", Inputs(journal=journal))
    lost = {"kind": "drafts.DraftRequest", "id": 999_999}
    write_lines(journal, [kept, lost])
    sentence = "drafts.DraftRequest 999999 was acknowledged and is not there"
    assert violations("N1", Inputs(journal=journal)) == [sentence]


@pytest.mark.parametrize(
    ("text", "is_stored"), [("", True), ("One", True), ("One two", True), ("one", False), ("One two!", False)]
)
def test_n4_finds_what_was_shown_and_is_not_stored(
    text: str, is_stored: bool, newsroom: Newsroom, tmp_path: Path
) -> None:
    job = a_claimed_job(newsroom)
    append_words(job, "One", " two")
    shown = write_lines(tmp_path / "shown", [{"draft": job.draft_id, "attempt": 1, "text": text}])
    assert bool(violations("N4", Inputs(shown=shown))) != is_stored


def test_n11_says_that_it_does_not_apply() -> None:
    assert "webhooks" in check_one("N11", Inputs()).not_applicable


def test_n13_finds_files_that_a_process_keeps_open(tmp_path: Path) -> None:
    process = {"name": "tests", "pid": os.getpid(), **usage(os.getpid())}
    baseline = tmp_path / "baseline"
    baseline.write_text(json.dumps({"processes": [process], "num_sessions": num_sessions()}))
    assert not violations("N13", Inputs(baseline=baseline))
    kept = [baseline.open() for _ in range(200)]
    try:
        [sentence] = violations("N13", Inputs(baseline=baseline))
    finally:
        for file in kept:
            file.close()
    assert sentence.startswith("tests: num_files went from ")


def test_n14_finds_a_planted_secret(tmp_path: Path) -> None:
    clean, dirty = tmp_path / "clean.log", tmp_path / "dirty.log"
    clean.write_text("nothing here\n")
    dirty.write_text("a line\na token: canary-7f3a, in the middle\n")
    inputs = Inputs(logs=[clean, dirty], canaries=["canary-0000", "canary-7f3a"])
    assert violations("N14", inputs) == [f"{dirty} line 2 holds a planted secret"]


def test_a_job_state_is_never_unknown_to_the_checks() -> None:
    """N2 names the states in SQL: whoever adds one must look at it."""
    assert set(JobState) == {"queued", "running", "stopped", "done", "failed", "cancelled"}
