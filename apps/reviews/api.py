"""Submitting and reviewing over JSON."""

from datetime import datetime

from django.db.models import QuerySet
from ninja import Router, Schema, Status

from apps.accounts.http import SignedInRequest
from apps.common.api import PROBLEMS
from apps.reviews import services
from apps.reviews.models import Comment, Decision, Review

router = Router()


class SubmitIn(Schema):
    revision: int | None = None


class ClaimIn(Schema):
    project_id: int | None = None
    review_id: int | None = None


class ReviewOut(Schema):
    id: int
    draft_id: int
    round: int
    text: str
    content_sha256: str
    author_id: int
    submitted_by_id: int
    submitted_at: datetime
    claimed_by_id: int | None
    claim_expires_at: datetime | None


class DecisionIn(Schema):
    decision: str
    content_sha256: str
    text: str | None = None
    reasons: list[str] = []
    comment: str = ""


class DecisionOut(Schema):
    review_id: int
    decision: str
    text: str
    text_sha256: str
    content_sha256: str
    reasons: list[str]
    comment: str
    decided_by_id: int
    decided_at: datetime


class CommentIn(Schema):
    text: str


class CommentOut(Schema):
    id: int
    author_id: int
    text: str
    created_at: datetime


@router.post("/drafts/{int:draft_id}/submit", response={201: ReviewOut, **PROBLEMS})
def submit_draft(request: SignedInRequest, draft_id: int, body: SubmitIn | None = None) -> Status[Review]:
    revision = body.revision if body else None
    return Status(201, services.submit_draft(user=request.user, draft_id=draft_id, revision=revision))


@router.get("/reviews", response={200: list[ReviewOut], **PROBLEMS})
def list_reviews(request: SignedInRequest, project_id: int | None = None) -> QuerySet[Review]:
    """Everything that waits for a decision in the caller's projects, oldest first."""
    reviews = Review.objects.for_user(request.user).waiting()
    return reviews.filter(draft__brief__project_id=project_id) if project_id else reviews


@router.post("/reviews/claim", response={200: ReviewOut, 204: None, **PROBLEMS})
def claim_review(request: SignedInRequest, body: ClaimIn | None = None) -> Status[Review | None]:
    """Take the oldest review that the caller may decide, or the one named; 204 when none waits."""
    if body and body.review_id:
        return Status(200, services.claim_review(user=request.user, review_id=body.review_id))
    review = services.claim_next(user=request.user, project_id=body.project_id if body else None)
    return Status(200, review) if review else Status(204, None)


@router.get("/reviews/{int:review_id}", response={200: ReviewOut, **PROBLEMS})
def get_review(request: SignedInRequest, review_id: int) -> Review:
    return services.review_for(request.user, review_id)


@router.post("/reviews/{int:review_id}/release", response={204: None, **PROBLEMS})
def release_review(request: SignedInRequest, review_id: int) -> Status[None]:
    services.release_review(user=request.user, review_id=review_id)
    return Status(204, None)


@router.get("/reviews/{int:review_id}/comments", response={200: list[CommentOut], **PROBLEMS})
def list_comments(request: SignedInRequest, review_id: int) -> QuerySet[Comment]:
    return services.review_for(request.user, review_id).comments.all()


@router.post("/reviews/{int:review_id}/comments", response={201: CommentOut, **PROBLEMS})
def add_comment(request: SignedInRequest, review_id: int, body: CommentIn) -> Status[Comment]:
    return Status(201, services.add_comment(user=request.user, review_id=review_id, text=body.text))


@router.post("/reviews/{int:review_id}/decision", response={201: DecisionOut, **PROBLEMS})
def decide(request: SignedInRequest, review_id: int, body: DecisionIn) -> Status[Decision]:
    fields = body.dict() | {"reasons": tuple(body.reasons)}
    decision = services.DecisionInput(**fields)
    return Status(201, services.decide(user=request.user, review_id=review_id, decision=decision))
