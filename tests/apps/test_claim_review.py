"""POST /reviews/claim: the oldest text that this person may decide, held for them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import DatabaseError, connection, transaction

from apps.accounts.models import User
from apps.common.leases import ClockTimestamp
from apps.projects.services import set_member
from apps.reviews import services
from apps.reviews.models import Review
from tests.support import cast
from tests.support.cast import Newsroom, assert_refused
from tests.support.factories import a_review, an_approval


def test_it_works(newsroom: Newsroom) -> None:
    first, _second = a_review(newsroom), a_review(newsroom)

    answer = newsroom.rosa.post("/reviews/claim")

    assert answer.status_code == 200
    assert (answer.json()["id"], answer.json()["claimed_by_id"]) == (first.pk, newsroom.rosa.user.pk)
    assert answer.json()["claim_expires_at"]


def test_an_empty_queue_is_no_error(newsroom: Newsroom) -> None:
    answer = newsroom.rosa.post("/reviews/claim")

    assert (answer.status_code, answer.content) == (204, b"")


def test_the_queue_is_read_by_every_member_and_by_no_stranger(newsroom: Newsroom) -> None:
    review = a_review(newsroom)
    an_approval(newsroom)

    assert [row["id"] for row in newsroom.eli.get("/reviews").json()] == [review.pk]
    assert newsroom.mallory.get("/reviews").json() == []
    assert_refused(newsroom.mallory.get(f"/reviews/{review.pk}"), 404, "not_found")


def test_own_drafts_are_passed_over(newsroom: Newsroom) -> None:
    a_review(newsroom, author=newsroom.ada)
    by_eli = a_review(newsroom)

    assert newsroom.ada.post("/reviews/claim").json()["id"] == by_eli.pk
    services.release_review(user=newsroom.ada.user, review_id=by_eli.pk)
    assert newsroom.rosa.post("/reviews/claim").json()["id"] != by_eli.pk


def test_a_draft_that_somebody_submitted_for_another_is_passed_over_by_both(newsroom: Newsroom) -> None:
    review = a_review(newsroom)
    other = a_review(newsroom)
    services.release_review(user=newsroom.ada.user, review_id=other.pk)
    Review.objects.filter(pk=review.pk).update(submitted_by=newsroom.ada.user)

    assert newsroom.ada.post("/reviews/claim").json()["id"] == other.pk
    own = newsroom.ada.post("/reviews/claim", review_id=review.pk)
    assert_refused(own, 403, "own_draft")


def test_a_held_text_is_passed_over_until_the_claim_runs_out(newsroom: Newsroom) -> None:
    review = a_review(newsroom)
    assert newsroom.rosa.post("/reviews/claim").json()["id"] == review.pk

    assert newsroom.ada.post("/reviews/claim").status_code == 204
    body = assert_refused(newsroom.ada.post("/reviews/claim", review_id=review.pk), 409, "claimed")
    assert "Rosa" in body["message"]

    Review.objects.filter(pk=review.pk).update(claim_expires_at=ClockTimestamp())
    assert newsroom.ada.post("/reviews/claim").json()["claimed_by_id"] == newsroom.ada.user.pk


def test_claiming_again_keeps_the_claim(newsroom: Newsroom) -> None:
    review = a_review(newsroom)

    for _ in range(2):
        assert newsroom.rosa.post("/reviews/claim", review_id=review.pk).status_code == 200


def test_a_released_text_is_free_at_once(newsroom: Newsroom) -> None:
    review = a_review(newsroom)
    newsroom.rosa.post("/reviews/claim")

    assert newsroom.ada.post(f"/reviews/{review.pk}/release").status_code == 204
    assert newsroom.ada.post("/reviews/claim").status_code == 204  # Ada has no hold to give up
    assert newsroom.rosa.post(f"/reviews/{review.pk}/release").status_code == 204
    assert newsroom.ada.post("/reviews/claim").json()["id"] == review.pk


def test_a_decided_text_cannot_be_claimed(newsroom: Newsroom) -> None:
    review = an_approval(newsroom).review

    answer = newsroom.ada.post("/reviews/claim", review_id=review.pk)

    assert_refused(answer, 409, "already_decided")


def test_the_project_can_be_chosen(newsroom: Newsroom) -> None:
    a_review(newsroom)

    answer = newsroom.rosa.post("/reviews/claim", project_id=newsroom.foreign_project.pk)

    assert answer.status_code == 204


def test_an_editor_claims_nothing(newsroom: Newsroom) -> None:
    review = a_review(newsroom, author=newsroom.ada)

    assert newsroom.eli.post("/reviews/claim").status_code == 204
    assert_refused(newsroom.eli.post("/reviews/claim", review_id=review.pk), 403, "forbidden")


def test_a_stranger_finds_nothing(newsroom: Newsroom) -> None:
    review = a_review(newsroom)

    assert newsroom.mallory.post("/reviews/claim").status_code == 204
    assert_refused(newsroom.mallory.post("/reviews/claim", review_id=review.pk), 404, "not_found")
    assert_refused(newsroom.mallory.post(f"/reviews/{review.pk}/release"), 404, "not_found")


def test_the_database_refuses_a_claim_on_an_own_draft(newsroom: Newsroom) -> None:
    review = a_review(newsroom)

    with pytest.raises(DatabaseError, match="nobody_claims_own_draft"), transaction.atomic():
        Review.objects.filter(pk=review.pk).update(claimed_by=newsroom.eli.user)


@pytest.mark.django_db(transaction=True)
def test_two_reviewers_at_once_hold_two_texts(newsroom: Newsroom) -> None:
    reviewers = [newsroom.rosa.user, newsroom.ada.user]
    for name in ("ravi", "ruth"):
        reviewers.append(cast.person(name).user)
        set_member(user=newsroom.ada.user, project_id=newsroom.project.pk, username=name, role="reviewer")
    reviews = {a_review(newsroom).pk for _ in reviewers}

    with ThreadPoolExecutor(len(reviewers)) as threads:
        claimed = list(threads.map(_claim, reviewers))

    assert set(claimed) == reviews


def _claim(user: User) -> int | None:
    try:
        review = services.claim_next(user=user)
        return review.pk if review else None
    finally:
        connection.close()
