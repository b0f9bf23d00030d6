"""PATCH /drafts/{id}: a person's text, unless somebody saved another one meanwhile."""

import pytest

from apps.common.text import sha256
from apps.drafts.models import Draft
from tests.support.cast import Newsroom, assert_refused
from tests.support.factories import TEXT, a_claimed_job, a_draft, a_queued_draft, a_review, append_words


def test_it_works(newsroom: Newsroom) -> None:
    draft = a_draft(newsroom)

    answer = newsroom.eli.patch(f"/drafts/{draft.pk}", text="Better.\r\nMuch better.", revision=1)

    assert answer.status_code == 200
    body = answer.json()
    assert (body["text"], body["revision"]) == ("Better.\nMuch better.", 2)
    assert body["content_sha256"] == sha256("Better.\nMuch better.")
    assert body["generated_text"] == TEXT


def test_of_two_tabs_the_second_is_told_and_nothing_is_lost(newsroom: Newsroom) -> None:
    draft = a_draft(newsroom)

    newsroom.eli.patch(f"/drafts/{draft.pk}", text="From the first tab.", revision=1)
    answer = newsroom.eli.patch(f"/drafts/{draft.pk}", text="From the second tab.", revision=1)

    assert_refused(answer, 409, "stale_revision")
    assert newsroom.eli.get(f"/drafts/{draft.pk}").json()["text"] == "From the first tab."


@pytest.mark.parametrize("revision", [0, -1, 2, 2**70])
def test_a_revision_that_is_not_the_current_one_is_stale(newsroom: Newsroom, revision: int) -> None:
    draft = a_draft(newsroom)

    answer = newsroom.eli.patch(f"/drafts/{draft.pk}", text="Other.", revision=revision)

    assert_refused(answer, 409, "stale_revision")


def test_a_waiting_draft_cannot_be_edited(newsroom: Newsroom) -> None:
    draft = a_queued_draft(newsroom)

    assert_refused(newsroom.eli.patch(f"/drafts/{draft.pk}", text="Mine.", revision=0), 409, "wrong_state")


def test_a_draft_that_is_being_written_cannot_be_edited(newsroom: Newsroom) -> None:
    job = a_claimed_job(newsroom)
    append_words(job, "The doors")

    answer = newsroom.eli.patch(f"/drafts/{job.draft_id}", text="Mine.", revision=0)

    assert_refused(answer, 409, "wrong_state")


def test_a_text_in_review_cannot_be_edited(newsroom: Newsroom) -> None:
    review = a_review(newsroom)

    answer = newsroom.eli.patch(f"/drafts/{review.draft_id}", text="Mine.", revision=1)

    assert_refused(answer, 409, "wrong_state")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a\0b", "control_characters"), ("a\x1bb", "control_characters"), ("x" * 200_001, "text_too_long")],
)
def test_a_text_that_cannot_be_kept_is_refused(newsroom: Newsroom, text: str, reason: str) -> None:
    draft = a_draft(newsroom)

    assert_refused(newsroom.eli.patch(f"/drafts/{draft.pk}", text=text, revision=1), 400, reason)
    assert Draft.objects.get(pk=draft.pk).text == TEXT


def test_a_reviewer_edits_no_drafts_and_a_stranger_finds_none(newsroom: Newsroom) -> None:
    draft = a_draft(newsroom)

    assert_refused(newsroom.rosa.patch(f"/drafts/{draft.pk}", text="Mine.", revision=1), 403, "forbidden")
    assert_refused(newsroom.mallory.patch(f"/drafts/{draft.pk}", text="Mine.", revision=1), 404, "not_found")
