"""The queue: what waits for whom, and why it is first."""

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts.models import User
from apps.drafts.models import Draft
from apps.projects.models import Project
from apps.projects.policies import Act, can
from apps.reviews.models import Decision, Review

LATE = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class QueueItem:
    review: Review
    is_own: bool
    is_held: bool
    is_mine: bool
    is_late: bool


def queue(user: User, *, project_id: int | None = None) -> list[QueueItem]:
    """Everything that waits in the projects where this person reviews, longest waiting first."""
    reviews = Review.objects.for_reviewer(user).waiting()
    if project_id is not None:
        reviews = reviews.filter(draft__brief__project_id=project_id)
    rows = reviews.select_related(
        "draft__brief__project", "draft__brief__preset", "author", "submitted_by", "claimed_by"
    )
    return [_item(review, user) for review in rows]


def _item(review: Review, user: User) -> QueueItem:
    now = timezone.now()
    is_held = bool(review.claimed_by_id and review.claim_expires_at and review.claim_expires_at > now)
    return QueueItem(
        review=review,
        is_own=user.pk in (review.author_id, review.submitted_by_id),
        is_held=is_held and review.claimed_by_id != user.pk,
        is_mine=is_held and review.claimed_by_id == user.pk,
        is_late=now - review.submitted_at > LATE,
    )


def why_not(user: User, review: Review) -> str:
    """Why this person cannot decide on this text, in a sentence; empty when they can."""
    item = _item(review, user)
    if not can(review.draft.brief.project.role_of(user), Act.REVIEW):
        return _("Your role here reads reviews but does not decide them.")
    if item.is_own:
        return _("Nobody reviews their own draft. Somebody else has to decide.")
    if item.is_held and review.claimed_by:
        return _("%(name)s is reviewing this right now.") % {"name": review.claimed_by.display_name}
    return ""


def num_waiting(project: Project) -> int:
    return Review.objects.waiting().filter(draft__brief__project=project).count()


def num_claimable(user: User) -> int:
    """What "Take the next" has to offer this person."""
    return Review.objects.for_reviewer(user).claimable_by(user).count()


def recent_decisions(user: User, *, limit: int = 10) -> QuerySet[Decision]:
    seen = Q(decided_by=user) | Q(author=user)
    rows = Decision.objects.filter(seen).select_related("review__draft__brief", "decided_by")
    return rows.filter(review__draft__brief__project__memberships__user=user)[:limit]


def last_review(draft: Draft) -> Review | None:
    """The newest round of a draft, decided or not."""
    rounds = draft.reviews.select_related("decision__decided_by", "claimed_by").prefetch_related(
        "comments__author"
    )
    return rounds.order_by("-round").first()
