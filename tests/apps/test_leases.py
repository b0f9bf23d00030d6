"""Jobs as claimed, leased and fenced rows: one worker each, and the dead lose their hold."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import DatabaseError, connection, transaction

from apps.common import leases
from apps.common.leases import MAX_ATTEMPTS, MAX_DEATHS, ClockTimestamp, JobState, LeaseLost
from apps.drafts import services, stream
from apps.drafts.models import Chunk, Draft, Job, Revision
from tests.support.cast import Newsroom
from tests.support.factories import (
    MODEL,
    a_brief,
    a_claimed_job,
    a_queued_draft,
    append_words,
    let_the_lease_run_out,
)


def claim_again(job: Job, *, worker: str = "worker-2") -> Job:
    claimed = Job.objects.filter(pk=job.pk).claim_next(worker=worker)
    assert claimed is not None
    services.begin_writing(job=claimed, release_id=None, adapter_sha256="", model=MODEL)
    return claimed


def test_a_claim_takes_the_oldest_waiting_job(newsroom: Newsroom) -> None:
    first, second = a_queued_draft(newsroom), a_queued_draft(newsroom)

    job = Job.objects.claim_next(worker="worker-1")

    assert job is not None
    assert (job.draft_id, job.state, job.worker) == (first.pk, JobState.RUNNING, "worker-1")
    assert (job.attempt, job.fence) == (1, 1)
    assert job.lease_until is not None
    next_job = Job.objects.claim_next(worker="worker-1")
    assert next_job is not None
    assert next_job.draft_id == second.pk
    assert Job.objects.claim_next(worker="worker-1") is None


def test_a_job_that_is_not_due_yet_is_left_alone(newsroom: Newsroom) -> None:
    a_queued_draft(newsroom)
    Job.objects.update(run_at=ClockTimestamp() + leases.LEASE)

    assert Job.objects.claim_next(worker="worker-1") is None


@pytest.mark.django_db(transaction=True)
def test_many_workers_at_once_never_get_the_same_job(newsroom: Newsroom) -> None:
    brief = a_brief(newsroom)
    services.request_drafts(user=newsroom.eli.user, brief_id=brief.pk, candidates=16)

    with ThreadPoolExecutor(6) as threads:
        claimed = [pk for pks in threads.map(_claim_all, range(6)) for pk in pks]

    assert Counter(claimed) == Counter(Job.objects.values_list("pk", flat=True))
    assert len(claimed) == 16


def _claim_all(number: int) -> list[int]:
    claimed = []
    try:
        while job := Job.objects.claim_next(worker=f"worker-{number}"):
            claimed.append(job.pk)
    finally:
        connection.close()
    return claimed


def test_whoever_has_lost_the_lease_writes_nothing(newsroom: Newsroom) -> None:
    stale = a_claimed_job(newsroom)
    append_words(stale, "The doors")
    let_the_lease_run_out(stale)
    services.reap_expired()
    living = claim_again(stale)

    for act in (
        lambda: stream.append(job=stale, text=" of a dead worker", token_ids=[1]),
        lambda: services.finish_draft(job=stale, finish_reason="end"),
        lambda: services.fail_draft(job=stale, reason="engine_error"),
        lambda: services.hand_back(job=stale),
    ):
        with pytest.raises(LeaseLost, match="no longer held with fence 1"):
            act()

    append_words(living, " open")
    draft = services.finish_draft(job=living, finish_reason="end")
    assert (draft.text, draft.last_seq, draft.state) == ("The doors open", 2, "ready")


def test_a_lease_is_renewed_with_every_chunk(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    let_the_lease_run_out(job)

    append_words(job, "The doors")

    assert services.reap_expired() == 0


def test_a_stale_fence_renews_nothing(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)

    assert leases.renew(Job.objects.held(pk=job.pk, fence=job.fence)) == 1
    assert leases.renew(Job.objects.held(pk=job.pk, fence=job.fence + 1)) == 0


def test_a_dead_workers_job_goes_on_in_another_worker(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    append_words(job, "The doors", " open")
    let_the_lease_run_out(job)

    assert services.reap_expired() == 1

    draft = Draft.objects.get(pk=job.draft_id)
    assert draft.state == "queued"
    again = claim_again(job)
    assert (again.attempt, again.fence, again.deaths) == (2, 2, 0)
    earlier = services.committed(draft)
    assert (earlier.text, len(earlier.token_ids)) == ("The doors open", 2)


def test_a_job_that_loses_every_worker_ends_with_a_reason_and_its_text(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    append_words(job, "The doors")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert (job.state, job.attempt) == (JobState.RUNNING, attempt)
        let_the_lease_run_out(job)
        assert services.reap_expired() == 1
        job.refresh_from_db()
        if job.state == JobState.QUEUED:
            job = claim_again(job)

    assert (job.state, job.reason, job.deaths) == (JobState.FAILED, "lost", 0)
    draft = Draft.objects.get(pk=job.draft_id)
    assert (draft.state, draft.text, draft.finish_reason) == ("failed", "The doors", "failed")


def test_a_job_that_kills_its_engine_twice_ends_with_a_reason(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    services.hand_back(job=job, died=True)
    job = claim_again(job)
    assert (job.attempt, job.deaths) == (2, 1)

    services.hand_back(job=job, died=True)

    job.refresh_from_db()
    assert (job.state, job.reason, job.deaths) == (JobState.FAILED, "poison", MAX_DEATHS)


def test_a_peaceful_hand_back_is_no_death_however_often(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    for _ in range(7):
        services.hand_back(job=job)
        job = claim_again(job)

    assert (job.state, job.deaths, job.attempt, job.fence) == (JobState.RUNNING, 0, 1, 8)


def test_a_job_of_a_busy_engine_waits_before_it_is_tried_again(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)

    services.hand_back(job=job, retry_after_s=60)

    assert Job.objects.get(pk=job.pk).state == JobState.QUEUED
    assert Job.objects.claim_next(worker="worker-2") is None


def test_a_job_stopped_while_its_worker_was_dead_keeps_its_text(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    append_words(job, "The doors")
    services.cancel_draft(user=newsroom.eli.user, draft_id=job.draft_id)
    let_the_lease_run_out(job)

    services.reap_expired()

    job.refresh_from_db()
    draft = Draft.objects.get(pk=job.draft_id)
    assert (job.state, draft.state, draft.text) == (JobState.CANCELLED, "stopped", "The doors")


def test_the_first_claim_pins_what_the_draft_is_written_with(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    services.hand_back(job=job)
    again = Job.objects.filter(pk=job.pk).claim_next(worker="worker-2")
    assert again is not None

    draft = services.begin_writing(job=again, release_id=None, adapter_sha256="a" * 64, model=MODEL)

    assert draft.adapter_sha256 == ""


@pytest.mark.parametrize(("begin", "end"), [("queued", "done"), ("queued", "failed"), ("queued", "stopped")])
def test_the_database_refuses_an_illegal_step_of_a_job(newsroom: Newsroom, begin: str, end: str) -> None:
    draft = a_queued_draft(newsroom)

    with pytest.raises(DatabaseError, match=f'from "{begin}" to "{end}"'), transaction.atomic():
        Job.objects.filter(draft=draft).update(state=end)


def test_the_database_refuses_to_bring_a_finished_job_back(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    append_words(job, "The doors")
    services.finish_draft(job=job, finish_reason="end")

    with pytest.raises(DatabaseError, match='from "done" to "queued"'), transaction.atomic():
        Job.objects.update(state=JobState.QUEUED)
    with pytest.raises(DatabaseError, match='from "ready" to "approved"'), transaction.atomic():
        Draft.objects.update(state="approved")


def test_a_running_job_without_a_lease_cannot_be_stored(newsroom: Newsroom) -> None:
    a_queued_draft(newsroom)

    with pytest.raises(DatabaseError, match="running_has_lease"), transaction.atomic():
        Job.objects.update(state=JobState.RUNNING)


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
def test_a_job_cannot_end_without_a_reason_and_a_time(newsroom: Newsroom, end: str) -> None:
    job = a_claimed_job(newsroom)

    for facts in ({"finished_at": ClockTimestamp()}, {"reason": "end"}):
        with pytest.raises(DatabaseError, match="ended_has_reason"), transaction.atomic():
            Job.objects.filter(pk=job.pk).update(state=end, **facts)


def test_chunks_are_numbered_once_and_never_change(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    append_words(job, "The doors", " open")
    seqs = list(Chunk.objects.filter(draft=job.draft_id).values_list("seq", flat=True))
    assert seqs == [1, 2]

    with pytest.raises(DatabaseError, match="chunk_seq_unique"), transaction.atomic():
        Chunk.objects.create(draft_id=job.draft_id, attempt=1, seq=2, text="again")
    with pytest.raises(DatabaseError, match="Cannot update"), transaction.atomic():
        Chunk.objects.update(text="changed")


def test_a_finished_draft_is_its_chunks_and_a_revision(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    append_words(job, "The", " doors", " öffnen", " 门")

    draft = services.finish_draft(job=job, finish_reason="end")

    assert draft.text == draft.generated_text == "The doors öffnen 门"
    assert (draft.num_tokens, draft.revision) == (4, 1)
    revision = Revision.objects.get(draft=draft)
    assert (revision.source, revision.text, revision.sha256) == (
        "generated", draft.text, draft.content_sha256
    )  # fmt: skip


def test_a_model_that_says_nothing_has_failed(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)

    draft = services.finish_draft(job=job, finish_reason="end")

    assert (draft.state, draft.text) == ("failed", "")
