"""POST /drafts/{id}/cancel: stop writing and keep what stands."""

from apps.audit.models import AuditEvent
from apps.common.leases import JobState
from apps.drafts import services
from apps.drafts.models import Job
from tests.support.cast import Newsroom, assert_refused
from tests.support.factories import a_claimed_job, a_draft, a_queued_draft, append_words


def test_a_draft_that_is_being_written_is_asked_to_stop(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    append_words(job, "The doors", " open")

    answer = newsroom.eli.post(f"/drafts/{job.draft_id}/cancel")

    assert (answer.status_code, answer.json()["state"]) == (200, "writing")
    job.refresh_from_db()
    assert (job.state, job.cancel_requested_at is not None) == (JobState.RUNNING, True)

    draft = services.finish_draft(job=job, finish_reason="cancelled")

    assert (draft.state, draft.text, draft.finish_reason) == ("stopped", "The doors open", "cancelled")


def test_a_waiting_draft_ends_at_once(newsroom: Newsroom) -> None:
    draft = a_queued_draft(newsroom)

    answer = newsroom.eli.post(f"/drafts/{draft.pk}/cancel").json()

    assert (answer["state"], answer["reason"], answer["finish_reason"]) == ("failed", "stopped", "stopped")
    assert Job.objects.get(draft=draft).state == JobState.CANCELLED


def test_a_draft_that_waits_after_a_dead_worker_keeps_its_text(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    append_words(job, "The doors")
    services.hand_back(job=job)

    answer = newsroom.eli.post(f"/drafts/{job.draft_id}/cancel").json()

    assert (answer["state"], answer["text"]) == ("stopped", "The doors")


def test_stopping_twice_is_stopping_once(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    address = f"/drafts/{job.draft_id}/cancel"

    newsroom.eli.post(address)
    job.refresh_from_db()
    asked_at = job.cancel_requested_at
    assert newsroom.eli.post(address).status_code == 200

    job.refresh_from_db()
    assert job.cancel_requested_at == asked_at
    assert AuditEvent.objects.filter(action="draft.stopped").count() == 1


def test_stopping_after_the_end_changes_nothing(newsroom: Newsroom) -> None:
    draft = a_draft(newsroom)

    answer = newsroom.eli.post(f"/drafts/{draft.pk}/cancel").json()

    assert (answer["state"], answer["text"]) == ("ready", draft.text)
    assert not AuditEvent.objects.filter(action="draft.stopped").exists()


def test_a_reviewer_stops_nothing_and_a_stranger_finds_nothing(newsroom: Newsroom) -> None:
    draft = a_queued_draft(newsroom)

    assert_refused(newsroom.rosa.post(f"/drafts/{draft.pk}/cancel"), 403, "forbidden")
    assert_refused(newsroom.mallory.post(f"/drafts/{draft.pk}/cancel"), 404, "not_found")
    draft.refresh_from_db()
    assert draft.state == "queued"
