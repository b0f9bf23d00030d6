"""Batches: a dry run, its start, pause and end, and the feeding of the writing queue."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, ProgrammingError, connection, transaction

from apps.audit.models import AuditEvent
from apps.batches import feeding, services
from apps.batches.feeding import FEED
from apps.batches.models import Batch, BatchRow, BatchState, RowState
from apps.batches.progress import progress_of
from apps.batches.selectors import counts
from apps.common.errors import Conflict, Forbidden, GalleyError, Invalid, NotFound
from apps.common.leases import JobState
from apps.drafts import services as drafts
from apps.drafts.models import Draft, DraftRequest, DraftState, Job, Worker
from apps.projects.models import Brief, Role
from apps.projects.services import set_member
from tests.support.batches import a_batch, a_dry_run, states, write_next
from tests.support.cast import Newsroom
from tests.support.factories import MODEL, append_words


def actions() -> list[str]:
    return list(AuditEvent.objects.filter(action__startswith="batch.").values_list("action", flat=True))


def test_it_works(newsroom: Newsroom) -> None:
    batch = a_batch(newsroom, 2, candidates=2, seed=40)
    assert (batch.state, states(batch)) == (BatchState.OPEN, ["writing", "writing"])
    assert list(Draft.objects.order_by("pk").values_list("seed", flat=True)) == [40, 41, 42, 43]
    assert Brief.objects.get(batch_row__number=2).subject == "Ferry 2"

    for _ in range(4):
        write_next()

    assert states(batch) == ["ready", "ready"]
    progress = progress_of(batch, counts(batch))
    assert (progress.state, progress.num_ended, progress.sentence) == ("done", 2, "All 2 rows are written.")
    assert actions() == ["batch.created", "batch.started"]


def test_nothing_is_written_before_the_start(newsroom: Newsroom) -> None:
    batch = a_dry_run(newsroom)

    assert feeding.feed_all() == feeding.feed(batch_id=batch.pk) == 0
    assert not Draft.objects.exists()


def test_rows_without_a_brief_are_left_out(newsroom: Newsroom) -> None:
    batch = a_batch(newsroom, rows=[{"subject": "Ferry"}, {"subject": ""}, {"subject": "B", "words": "few"}])

    assert states(batch) == ["writing", "refused", "refused"]
    [problem] = batch.rows.get(number=3).problems
    assert (problem["field"], problem["column"]) == ("num_words", "words")


def test_a_batch_without_a_good_row_does_not_start(newsroom: Newsroom) -> None:
    with pytest.raises(Conflict, match="No row can be written"):
        a_batch(newsroom, rows=[{"subject": ""}])


def test_other_columns_are_another_dry_run(newsroom: Newsroom) -> None:
    rows = [{"subject": "A", "headline": "Ferry", "n": "80"}, {"subject": "B", "headline": "", "n": "90"}]
    batch = a_dry_run(newsroom, rows=rows)

    services.map_columns(
        user=newsroom.eli.user, batch_id=batch.pk, mapping={"subject": "headline", "num_words": "n"}
    )
    services.start_batch(user=newsroom.eli.user, batch_id=batch.pk)

    assert states(batch) == ["writing", "refused"]
    brief = Brief.objects.get()
    assert (brief.subject, brief.num_words) == ("Ferry", 80)


def test_columns_stay_once_it_is_started(newsroom: Newsroom) -> None:
    batch = a_batch(newsroom)

    with pytest.raises(Conflict):
        services.map_columns(user=newsroom.eli.user, batch_id=batch.pk, mapping={"subject": "words"})
    with pytest.raises(Conflict):
        services.discard_batch(user=newsroom.eli.user, batch_id=batch.pk)


def test_a_dry_run_can_be_thrown_away(newsroom: Newsroom) -> None:
    services.discard_batch(user=newsroom.eli.user, batch_id=a_dry_run(newsroom).pk)

    assert not Batch.objects.exists()
    assert not BatchRow.objects.exists()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"candidates": 0}, "candidates_out_of_range"),
        ({"candidates": 5}, "candidates_out_of_range"),
        ({"seed": -1}, "seed_out_of_range"),
        ({"seed": 2**32}, "seed_out_of_range"),
        ({"name": " "}, "empty"),
        ({"name": "a\0"}, "control_characters"),
        ({"preset_id": 0}, "unknown_preset"),
        ({"mapping": {"subject": "title"}}, "unknown_column"),
        ({"client_request_id": "x" * 65}, "text_too_long"),
    ],
)
def test_bad_input(newsroom: Newsroom, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(Invalid) as refused:
        a_dry_run(newsroom, **settings)

    assert refused.value.reason == reason
    assert not Batch.objects.exists()


def test_a_preset_of_another_project_is_unknown(newsroom: Newsroom) -> None:
    foreign: Any = newsroom.foreign_project
    with pytest.raises(Invalid, match="one of the project's"):
        a_dry_run(newsroom, preset_id=foreign.presets.first().pk)


def test_a_second_upload_of_the_same_click_finds_the_first(newsroom: Newsroom) -> None:
    first, second = (a_dry_run(newsroom, client_request_id="click-1") for _ in range(2))

    assert first == second
    assert BatchRow.objects.count() == 3


def test_a_second_start_changes_nothing(newsroom: Newsroom) -> None:
    batch = a_batch(newsroom)
    since = batch.running_since

    again = services.start_batch(user=newsroom.ada.user, batch_id=batch.pk)

    assert again.running_since == since
    assert DraftRequest.objects.count() == 3
    assert actions().count("batch.started") == 1


# --- feeding -----------------------------------------------------------------------------------


def test_a_batch_is_fed_bit_by_bit(newsroom: Newsroom) -> None:
    batch = a_batch(newsroom, FEED + 3)
    assert (states(batch).count("writing"), states(batch).count("waiting")) == (FEED, 3)
    assert feeding.feed(batch_id=batch.pk) == 0

    write_next()
    assert (states(batch).count("writing"), states(batch).count("ready")) == (FEED, 1)
    assert batch.rows.filter(state=RowState.WRITING).last() == batch.rows.get(number=FEED + 1)


def test_candidates_count_one_by_one(newsroom: Newsroom) -> None:
    batch = a_batch(newsroom, FEED, candidates=4)

    assert states(batch).count("writing") == FEED / 4


def test_batch_jobs_stand_behind_people(newsroom: Newsroom) -> None:
    a_batch(newsroom, 1)
    brief = Brief.objects.get()
    drafts.request_drafts(user=newsroom.eli.user, brief_id=brief.pk)

    first = Job.objects.claim_next(worker="worker-1")

    assert first is not None
    assert not BatchRow.objects.filter(request__drafts=first.draft_id).exists()


@pytest.mark.django_db(transaction=True)
def test_several_feeders_feed_no_row_twice_and_none_too_many(newsroom: Newsroom) -> None:
    batch = a_dry_run(newsroom, 2 * FEED)
    Batch.objects.filter(pk=batch.pk).update(state=BatchState.OPEN, running_since=batch.created_at)

    in_threads(lambda: feeding.feed(batch_id=batch.pk), num=4)
    feeding.feed(batch_id=batch.pk)

    assert states(batch) == ["writing"] * FEED + ["waiting"] * FEED
    assert DraftRequest.objects.count() == Brief.objects.count() == Draft.objects.count() == FEED


@pytest.mark.django_db(transaction=True)
def test_a_double_click_on_start_is_one_start(newsroom: Newsroom) -> None:
    batch = a_dry_run(newsroom, 5)

    in_threads(lambda: services.start_batch(user=newsroom.eli.user, batch_id=batch.pk), num=4)

    assert DraftRequest.objects.count() == 5
    assert actions() == ["batch.created", "batch.started"]


@pytest.mark.django_db(transaction=True)
def test_a_double_click_on_upload_is_one_batch(newsroom: Newsroom) -> None:
    in_threads(lambda: a_dry_run(newsroom, 50, client_request_id="click-1"), num=4)

    assert Batch.objects.count() == 1
    assert BatchRow.objects.count() == 50


def in_threads(act: Callable[[], object], *, num: int) -> None:
    """The act by `num` people at the same moment; refusals are part of the race, errors are not."""
    barrier, errors = threading.Barrier(num), []

    def run() -> None:
        try:
            barrier.wait()
            act()
        except GalleyError:
            pass
        except Exception as error:  # noqa: BLE001  # told by the thread that waits
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(num)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_without_a_model_the_rows_wait(newsroom: Newsroom) -> None:
    worker = Worker.objects.create(name="writing@here", role="writing", info={"error": "no model"})

    batch = a_batch(newsroom)
    assert (batch.state, states(batch)) == (BatchState.OPEN, ["waiting"] * 3)

    worker.delete()
    assert feeding.feed_all() == 3
    assert states(batch) == ["writing"] * 3


def test_a_rule_that_changed_since_the_dry_run_fails_its_row_alone(newsroom: Newsroom) -> None:
    batch = a_dry_run(newsroom)
    batch.rows.filter(number=2).update(fields={"subject": "Ferry", "words": "1"})

    services.start_batch(user=newsroom.eli.user, batch_id=batch.pk)

    assert states(batch) == ["writing", "failed", "writing"]
    assert "20 to 2000 words" in batch.rows.get(number=2).error


def test_the_batch_of_somebody_who_may_write_no_more_is_paused_and_says_why(newsroom: Newsroom) -> None:
    batch = a_batch(newsroom, FEED + 1)
    set_member(user=newsroom.ada.user, project_id=newsroom.project.pk, username="eli", role=Role.REVIEWER)

    write_next()

    batch.refresh_from_db()
    assert batch.state == BatchState.PAUSED
    assert "may not write here now" in progress_of(batch, counts(batch)).sentence
    assert states(batch).count("failed") == 0


def test_what_a_dead_worker_left_is_settled_by_the_sweeper(newsroom: Newsroom) -> None:
    batch = a_batch(newsroom, 1)
    job = Job.objects.claim_next(worker="worker-1")
    assert job is not None
    drafts.begin_writing(job=job, release_id=None, adapter_sha256="", model=MODEL)
    append_words(job, "Text.")
    drafts.finish_draft(job=job, finish_reason="end")
    assert states(batch) == ["writing"]

    feeding.feed_all()

    assert states(batch) == ["ready"]


# --- pause, cancel, retry ----------------------------------------------------------------------


def test_a_pause_finishes_what_is_in_the_queue(newsroom: Newsroom) -> None:
    batch = a_batch(newsroom, FEED + 2)
    services.pause_batch(user=newsroom.eli.user, batch_id=batch.pk)
    batch.refresh_from_db()
    sentence = progress_of(batch, counts(batch)).sentence
    assert sentence == f"Pausing: {FEED} rows in the queue are finished first."

    for _ in range(FEED):
        write_next()
    assert (states(batch).count("ready"), states(batch).count("waiting")) == (FEED, 2)
    assert feeding.feed_all() == 0

    services.resume_batch(user=newsroom.ada.user, batch_id=batch.pk)
    assert states(batch).count("writing") == 2
    assert actions()[2:] == ["batch.paused", "batch.resumed"]


def test_two_browsers_that_pause_and_resume(newsroom: Newsroom) -> None:
    batch = a_batch(newsroom)
    for _ in range(2):
        services.pause_batch(user=newsroom.eli.user, batch_id=batch.pk)
    for _ in range(2):
        services.resume_batch(user=newsroom.ada.user, batch_id=batch.pk)

    assert actions()[2:] == ["batch.paused", "batch.resumed"]


def test_a_cancel_stops_what_nobody_writes_yet(newsroom: Newsroom) -> None:
    batch = a_batch(newsroom, FEED + 2)
    written = write_next()
    job = Job.objects.claim_next(worker="worker-1")
    assert job is not None
    drafts.begin_writing(job=job, release_id=None, adapter_sha256="", model=MODEL)

    services.cancel_batch(user=newsroom.eli.user, batch_id=batch.pk)

    assert states(batch).count("cancelled") == FEED
    assert Job.objects.filter(state=JobState.QUEUED).count() == 0
    append_words(job, "Still.")
    drafts.finish_draft(job=job, finish_reason="end")
    feeding.feed_after(draft_id=job.draft_id)
    assert states(batch).count("ready") == 2
    assert Draft.objects.get(pk=written.pk).state == DraftState.READY
    with pytest.raises(Conflict):
        services.resume_batch(user=newsroom.eli.user, batch_id=batch.pk)


def test_failed_rows_are_tried_again_afresh(newsroom: Newsroom) -> None:
    batch = a_batch(newsroom, 2)
    failed, good = write_next(fails=True), write_next()
    assert sorted(states(batch)) == ["failed", "ready"]

    assert services.retry_failed(user=newsroom.eli.user, batch_id=batch.pk) == 1
    assert services.retry_failed(user=newsroom.eli.user, batch_id=batch.pk) == 0

    row = batch.rows.get(state=RowState.WRITING)
    assert row.tries == 2
    assert row.brief_id == failed.brief_id
    again = write_next()
    assert again.pk not in (failed.pk, good.pk)
    assert (again.brief_id, states(batch)) == (failed.brief_id, ["ready", "ready"])
    assert actions()[2:] == ["batch.retried"]


def test_a_draft_stopped_by_hand_is_no_failure(newsroom: Newsroom) -> None:
    batch = a_batch(newsroom, 2)
    one, two = Draft.objects.order_by("pk")
    drafts.cancel_draft(user=newsroom.eli.user, draft_id=one.pk)
    feeding.feed_all()
    assert states(batch) == ["cancelled", "writing"]

    job = Job.objects.claim_next(worker="worker-1")
    assert job is not None
    drafts.begin_writing(job=job, release_id=None, adapter_sha256="", model=MODEL)
    append_words(job, "Half a text")
    drafts.finish_draft(job=job, finish_reason="cancelled")
    feeding.feed_after(draft_id=two.pk)
    assert states(batch) == ["cancelled", "ready"]


# --- who may -----------------------------------------------------------------------------------

ACTS: list[Callable[..., Any]] = [
    services.start_batch,
    services.pause_batch,
    services.resume_batch,
    services.cancel_batch,
    services.retry_failed,
    services.discard_batch,
]


@pytest.mark.parametrize("act", ACTS)
def test_every_act_is_for_members_who_write(newsroom: Newsroom, act: Callable[..., Any]) -> None:
    batch = a_dry_run(newsroom)

    with pytest.raises(NotFound):
        act(user=newsroom.mallory.user, batch_id=batch.pk)
    with pytest.raises(Forbidden):
        act(user=newsroom.rosa.user, batch_id=batch.pk)
    assert Batch.objects.get().state == BatchState.DRAFT


# --- what the database itself holds ------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "to"),
    [(BatchState.DRAFT, "paused"), (BatchState.CANCELLED, "open"), (BatchState.OPEN, "draft")],
)
def test_an_illegal_state_is_refused_by_the_database(newsroom: Newsroom, start: BatchState, to: str) -> None:
    batch = a_dry_run(newsroom) if start == BatchState.DRAFT else a_batch(newsroom)
    if start == BatchState.CANCELLED:
        services.cancel_batch(user=newsroom.eli.user, batch_id=batch.pk)

    with pytest.raises(ProgrammingError), transaction.atomic():
        Batch.objects.filter(pk=batch.pk).update(state=to)


def test_a_written_row_has_its_request(newsroom: Newsroom) -> None:
    batch = a_dry_run(newsroom)

    with pytest.raises(IntegrityError), transaction.atomic():
        batch.rows.update(state=RowState.WRITING)
