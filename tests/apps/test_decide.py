"""POST /reviews/{id}/decision: one decision a round, by somebody else, on the text that was seen."""

from typing import Any

import pytest
from django.db import DatabaseError, transaction

from apps.common.text import sha256
from apps.drafts.models import Draft, Revision
from apps.reviews.models import Decision, Review
from tests.support.cast import Answer, Newsroom, Person, assert_refused
from tests.support.factories import TEXT, a_review


def decide(person: Person, review: Review, decision: str, **fields: Any) -> Answer:
    body = {"decision": decision, "content_sha256": review.content_sha256} | fields
    return person.post(f"/reviews/{review.pk}/decision", **body)


def test_approve(newsroom: Newsroom) -> None:
    review = a_review(newsroom)

    answer = decide(newsroom.rosa, review, "approve", comment="Lovely.")

    assert answer.status_code == 201
    body = answer.json()
    assert (body["decision"], body["text"], body["comment"]) == ("approve", TEXT, "Lovely.")
    assert body["text_sha256"] == body["content_sha256"] == review.content_sha256
    draft = Draft.objects.get(pk=review.draft_id)
    assert (draft.state, draft.text, draft.content_sha256) == ("approved", TEXT, sha256(TEXT))


def test_approve_with_edits(newsroom: Newsroom) -> None:
    review = a_review(newsroom)

    answer = decide(newsroom.rosa, review, "approve_with_edits", text="RIVERSIDE. " + TEXT)

    assert answer.status_code == 201
    decision = Decision.objects.get(review=review)
    assert (decision.text, decision.content_sha256) == ("RIVERSIDE. " + TEXT, review.content_sha256)
    draft = Draft.objects.get(pk=review.draft_id)
    assert (draft.state, draft.text, draft.generated_text) == ("approved", "RIVERSIDE. " + TEXT, TEXT)
    assert draft.content_sha256 == sha256(draft.text) == decision.text_sha256
    last = Revision.objects.filter(draft=draft).latest("number")
    assert (last.source, last.author_id) == ("reviewed", newsroom.rosa.user.pk)


def test_request_changes_and_a_second_round(newsroom: Newsroom) -> None:
    review = a_review(newsroom)
    address = f"/drafts/{review.draft_id}"

    assert decide(newsroom.rosa, review, "request_changes", comment="Open with the date.").status_code == 201
    draft = newsroom.eli.get(address).json()
    assert draft["state"] == "changes_requested"

    edited = newsroom.eli.patch(address, text="4 May. " + TEXT, revision=draft["revision"]).json()
    second = newsroom.eli.post(f"{address}/submit", revision=edited["revision"]).json()
    assert (second["round"], second["text"]) == (2, "4 May. " + TEXT)

    assert decide(newsroom.rosa, Review.objects.get(pk=second["id"]), "approve").status_code == 201
    assert newsroom.eli.get(address).json()["state"] == "approved"
    kinds = Decision.objects.order_by("review__round").values_list("decision", flat=True)
    assert list(kinds) == ["request_changes", "approve"]


def test_reject(newsroom: Newsroom) -> None:
    review = a_review(newsroom)

    answer = decide(newsroom.rosa, review, "reject", reasons=["fact", "style"])

    assert (answer.status_code, answer.json()["reasons"]) == (201, ["fact", "style"])
    assert Draft.objects.get(pk=review.draft_id).state == "rejected"


def test_nobody_reviews_their_own_draft(newsroom: Newsroom) -> None:
    review = a_review(newsroom, author=newsroom.ada)

    assert_refused(decide(newsroom.ada, review, "approve"), 403, "own_draft")
    assert not Decision.objects.exists()


@pytest.mark.parametrize("claims_to_be_by", ["ada", "eli"])
def test_the_database_refuses_a_decision_on_an_own_draft(newsroom: Newsroom, claims_to_be_by: str) -> None:
    """Also where the row lies about who wrote the draft."""
    review = a_review(newsroom, author=newsroom.ada)

    with pytest.raises(DatabaseError), transaction.atomic():
        Decision.objects.create(
            review=review,
            decision="approve",
            text=review.text,
            text_sha256=review.content_sha256,
            content_sha256=review.content_sha256,
            author=getattr(newsroom, claims_to_be_by).user,
            decided_by=newsroom.ada.user,
        )


def test_a_text_that_is_not_the_one_seen_is_not_decided_on(newsroom: Newsroom) -> None:
    review = a_review(newsroom)

    answer = decide(newsroom.rosa, review, "approve", content_sha256=sha256("another text"))

    assert_refused(answer, 409, "text_changed")
    review.refresh_from_db()
    assert review.claimed_by is None  # a refusal leaves nothing behind


def test_a_round_is_decided_once(newsroom: Newsroom) -> None:
    review = a_review(newsroom)
    decide(newsroom.rosa, review, "approve")

    assert_refused(decide(newsroom.rosa, review, "reject", reasons=["fact"]), 409, "already_decided")
    assert_refused(decide(newsroom.ada, review, "approve"), 409, "already_decided")
    assert Draft.objects.get(pk=review.draft_id).state == "approved"


def test_a_text_that_somebody_else_holds_is_not_decided_on(newsroom: Newsroom) -> None:
    review = a_review(newsroom)
    newsroom.rosa.post("/reviews/claim")

    assert_refused(decide(newsroom.ada, review, "approve"), 409, "claimed")


def test_a_decision_never_changes(newsroom: Newsroom) -> None:
    decide(newsroom.rosa, a_review(newsroom), "approve")

    with pytest.raises(DatabaseError, match="Cannot update"), transaction.atomic():
        Decision.objects.update(decision="reject", reasons=["fact"])


def test_an_editor_decides_nothing_and_a_stranger_finds_nothing(newsroom: Newsroom) -> None:
    review = a_review(newsroom, author=newsroom.ada)

    assert_refused(decide(newsroom.eli, review, "approve"), 403, "forbidden")
    assert_refused(decide(newsroom.mallory, review, "approve"), 404, "not_found")


@pytest.mark.parametrize(
    ("decision", "fields", "status", "reason"),
    [
        ("applaud", {}, 400, "unknown_decision"),
        ("reject", {}, 400, "reason_required"),
        ("reject", {"comment": "Bad."}, 400, "reason_required"),
        ("reject", {"reasons": ["mood"]}, 400, "unknown_reason"),
        ("request_changes", {}, 400, "reason_required"),
        ("request_changes", {"comment": "  "}, 400, "reason_required"),
        ("approve", {"comment": "a\0"}, 400, "control_characters"),
        ("approve", {"comment": "x" * 4001}, 400, "text_too_long"),
        ("approve_with_edits", {}, 400, "empty"),
        ("approve_with_edits", {"text": TEXT}, 400, "nothing_edited"),
        ("approve_with_edits", {"text": TEXT + "\0"}, 400, "control_characters"),
        ("approve_with_edits", {"text": "x" * 200_001}, 400, "text_too_long"),
        ("approve", {"reasons": "fact"}, 422, "invalid_input"),
    ],
)
def test_bad_input(
    newsroom: Newsroom, decision: str, fields: dict[str, Any], status: int, reason: str
) -> None:
    review = a_review(newsroom)

    assert_refused(decide(newsroom.rosa, review, decision, **fields), status, reason)
    assert Draft.objects.get(pk=review.draft_id).state == "in_review"


def test_a_comment_of_a_member_stands_with_the_review(newsroom: Newsroom) -> None:
    review = a_review(newsroom)

    answer = newsroom.eli.post(f"/reviews/{review.pk}/comments", text="Checked with the city.")

    assert answer.status_code == 201
    comments = newsroom.rosa.get(f"/reviews/{review.pk}/comments").json()
    assert [(comment["text"], comment["author_id"]) for comment in comments] == [
        ("Checked with the city.", newsroom.eli.user.pk)
    ]
    assert_refused(newsroom.eli.post(f"/reviews/{review.pk}/comments", text=" "), 400, "empty")
    assert_refused(newsroom.mallory.post(f"/reviews/{review.pk}/comments", text="Hi"), 404, "not_found")
