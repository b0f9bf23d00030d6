"""POST /drafts/{id}/submit: the text as it stands, frozen into a round of review."""

import pytest
from django.db import DatabaseError, transaction

from apps.drafts import services as drafts
from apps.drafts.models import Revision
from apps.reviews.models import Review
from tests.support.cast import Newsroom, assert_refused
from tests.support.factories import (
    TEXT,
    a_claimed_job,
    a_draft,
    a_queued_draft,
    a_review,
    an_approval,
    append_words,
)


def test_it_works(newsroom: Newsroom) -> None:
    draft = a_draft(newsroom)

    answer = newsroom.eli.post(f"/drafts/{draft.pk}/submit", revision=1)

    assert answer.status_code == 201
    review = answer.json()
    assert (review["round"], review["text"], review["content_sha256"]) == (1, TEXT, draft.content_sha256)
    assert (review["author_id"], review["claimed_by_id"]) == (newsroom.eli.user.pk, None)
    assert newsroom.eli.get(f"/drafts/{draft.pk}").json()["state"] == "in_review"
    sources = Revision.objects.filter(draft=draft).values_list("source", flat=True)
    assert list(sources) == ["generated", "submitted"]


def test_what_is_submitted_is_what_was_edited(newsroom: Newsroom) -> None:
    draft = a_draft(newsroom)
    newsroom.eli.patch(f"/drafts/{draft.pk}", text="Edited.", revision=1)

    assert newsroom.eli.post(f"/drafts/{draft.pk}/submit", revision=2).json()["text"] == "Edited."


def test_a_stopped_draft_is_a_real_draft(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    append_words(job, "The doors open")
    drafts.finish_draft(job=job, finish_reason="cancelled")

    assert newsroom.eli.post(f"/drafts/{job.draft_id}/submit").json()["text"] == "The doors open"


def test_submitting_twice_is_refused(newsroom: Newsroom) -> None:
    draft = a_draft(newsroom)
    newsroom.eli.post(f"/drafts/{draft.pk}/submit")

    assert_refused(newsroom.eli.post(f"/drafts/{draft.pk}/submit"), 409, "already_submitted")
    assert Review.objects.count() == 1


@pytest.mark.parametrize("revision", [0, 2, -1])
def test_a_text_that_changed_since_it_was_read_is_not_submitted(newsroom: Newsroom, revision: int) -> None:
    draft = a_draft(newsroom)

    answer = newsroom.eli.post(f"/drafts/{draft.pk}/submit", revision=revision)

    body = assert_refused(answer, 409, "stale_revision")
    assert f"yours was {revision}" in body["message"]


def test_a_draft_that_waits_cannot_be_submitted(newsroom: Newsroom) -> None:
    draft = a_queued_draft(newsroom)

    assert_refused(newsroom.eli.post(f"/drafts/{draft.pk}/submit"), 409, "wrong_state")


def test_a_draft_that_is_decided_cannot_be_submitted(newsroom: Newsroom) -> None:
    decision = an_approval(newsroom)

    answer = newsroom.eli.post(f"/drafts/{decision.review.draft_id}/submit")

    assert_refused(answer, 409, "wrong_state")


def test_nothing_to_read_is_nothing_to_review(newsroom: Newsroom) -> None:
    draft = a_draft(newsroom)
    newsroom.eli.patch(f"/drafts/{draft.pk}", text=" \n ", revision=1)

    assert_refused(newsroom.eli.post(f"/drafts/{draft.pk}/submit"), 400, "empty")


def test_the_submitted_text_never_changes(newsroom: Newsroom) -> None:
    review = a_review(newsroom)

    with pytest.raises(DatabaseError, match="Cannot update"), transaction.atomic():
        Review.objects.filter(pk=review.pk).update(text="Something else.")


def test_a_reviewer_submits_nothing_and_a_stranger_finds_nothing(newsroom: Newsroom) -> None:
    draft = a_draft(newsroom)

    assert_refused(newsroom.rosa.post(f"/drafts/{draft.pk}/submit"), 403, "forbidden")
    assert_refused(newsroom.mallory.post(f"/drafts/{draft.pk}/submit"), 404, "not_found")
