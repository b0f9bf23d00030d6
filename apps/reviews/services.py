"""Acts of review: submit, claim, comment, decide."""

from dataclasses import dataclass, replace
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from apps.accounts.models import User
from apps.audit.services import record
from apps.common.errors import Conflict, Forbidden, Invalid
from apps.common.leases import ClockTimestamp
from apps.common.text import clean_text, sha256
from apps.drafts.models import EDITABLE_STATES, Draft, DraftState, RevisionSource
from apps.drafts.services import add_revision, draft_for, refuse_stale
from apps.projects.policies import Act, not_found, require
from apps.reviews.models import Comment, Decision, DecisionKind, ReasonCode, Review

CLAIM = timedelta(minutes=30)
_STATE_AFTER = {
    DecisionKind.APPROVE: DraftState.APPROVED,
    DecisionKind.APPROVE_WITH_EDITS: DraftState.APPROVED,
    DecisionKind.REQUEST_CHANGES: DraftState.CHANGES_REQUESTED,
    DecisionKind.REJECT: DraftState.REJECTED,
}


@transaction.atomic
def submit_draft(*, user: User, draft_id: int, revision: int | None = None) -> Review:
    """Freeze the text as it stands and put it into the queue as a new round.

    With `revision` the submission is refused when the text has changed since it was read.
    """
    draft = draft_for(user, draft_id, Act.WRITE)
    draft = Draft.objects.select_for_update(of=("self",)).select_related("brief").get(pk=draft.pk)
    if draft.state == DraftState.IN_REVIEW:
        raise Conflict("already_submitted", _("This draft is in review already."))
    if draft.state not in EDITABLE_STATES or revision not in (None, draft.revision):
        refuse_stale(draft, draft.revision if revision is None else revision)
    if not draft.text.strip():
        raise Invalid("empty", _("There is no text to review yet."), field="text")
    Draft.objects.filter(pk=draft.pk).update(state=DraftState.IN_REVIEW, content_sha256=sha256(draft.text))
    review = Review.objects.create(
        draft=draft,
        round=draft.reviews.count() + 1,
        text=draft.text,
        content_sha256=sha256(draft.text),
        author=draft.author,
        submitted_by=user,
    )
    add_revision(draft, source=RevisionSource.SUBMITTED, text=draft.text, author=user)
    record(
        actor=user,
        action="draft.submitted",
        obj=review,
        project_id=draft.brief.project_id,
        content_sha256=review.content_sha256,
    )
    return review


@transaction.atomic
def claim_next(*, user: User, project_id: int | None = None) -> Review | None:
    """The oldest waiting review that this person may decide, now held by them; None when there is none."""
    reviews = Review.objects.for_reviewer(user).claimable_by(user)
    if project_id is not None:
        reviews = reviews.filter(draft__brief__project_id=project_id)
    review = reviews.select_for_update(skip_locked=True, of=("self",)).first()
    return _claim(review, user) if review else None


@transaction.atomic
def claim_review(*, user: User, review_id: int) -> Review:
    """Take this very review. Raises Conflict while somebody else holds it."""
    review = review_for(user, review_id, Act.REVIEW)
    review = Review.objects.select_for_update(of=("self",)).select_related("draft__brief").get(pk=review.pk)
    _refuse_own(review, user)
    if Decision.objects.filter(review=review).exists():
        raise Conflict("already_decided", _("This round is decided already."))
    if not Review.objects.claimable_by(user).filter(pk=review.pk).exists():
        holder = review.claimed_by.display_name if review.claimed_by else ""
        raise Conflict("claimed", _("%(name)s is reviewing this right now.") % {"name": holder})
    return _claim(review, user)


def _claim(review: Review, user: User) -> Review:
    Review.objects.filter(pk=review.pk).update(claimed_by=user, claim_expires_at=ClockTimestamp() + CLAIM)
    review.refresh_from_db()
    return review


def _refuse_own(review: Review, user: User) -> None:
    if user.pk in (review.author_id, review.submitted_by_id):
        raise Forbidden("own_draft", _("Nobody reviews their own draft. Somebody else has to decide."))


@transaction.atomic
def release_review(*, user: User, review_id: int) -> None:
    """Put a claimed review back into the queue."""
    review = review_for(user, review_id, Act.REVIEW)
    Review.objects.filter(pk=review.pk, claimed_by=user).update(claimed_by=None, claim_expires_at=None)


@transaction.atomic
def add_comment(*, user: User, review_id: int, text: str) -> Comment:
    review = review_for(user, review_id, Act.READ)
    text = clean_text(text, field="text", max_chars=4000, required=True)
    comment = Comment.objects.create(review=review, author=user, text=text)
    record(actor=user, action="review.commented", obj=review, project_id=review.draft.brief.project_id)
    return comment


@dataclass(frozen=True, kw_only=True)
class DecisionInput:
    """A decision as it was sent. `content_sha256` names the text that the person saw."""

    decision: str
    content_sha256: str
    text: str | None = None
    reasons: tuple[str, ...] = ()
    comment: str = ""

    def cleaned(self) -> "DecisionInput":
        if self.decision not in DecisionKind.values:
            raise Invalid("unknown_decision", _("Choose one of the four decisions."), field="decision")
        if unknown := [reason for reason in self.reasons if reason not in ReasonCode.values]:
            message = _("Unknown reason: %(reasons)s.") % {"reasons": ", ".join(unknown)}
            raise Invalid("unknown_reason", message, field="reasons")
        comment = clean_text(self.comment, field="comment", max_chars=4000)
        if self.decision == DecisionKind.REJECT and not self.reasons:
            raise Invalid("reason_required", _("Say why: choose at least one reason."), field="reasons")
        if self.decision == DecisionKind.REQUEST_CHANGES and not (comment.strip() or self.reasons):
            message = _("Say what should change: a reason or a comment.")
            raise Invalid("reason_required", message, field="comment")
        return replace(self, comment=comment)


@transaction.atomic
def decide(*, user: User, review_id: int, decision: DecisionInput) -> Decision:
    """Decide a round, once, on the text that was seen. The draft's state follows in the same transaction."""
    decision = decision.cleaned()
    review = claim_review(user=user, review_id=review_id)
    if decision.content_sha256 != review.content_sha256:
        raise Conflict("text_changed", _("The text is not the one that you read. Reload and look again."))
    kind, text = DecisionKind(decision.decision), _final_text(review, decision)
    try:
        with transaction.atomic():
            row = Decision.objects.create(
                review=review,
                decision=kind,
                text=text,
                text_sha256=sha256(text),
                content_sha256=decision.content_sha256,
                reasons=list(decision.reasons),
                comment=decision.comment,
                author_id=review.author_id,
                decided_by=user,
            )
    except IntegrityError as error:
        raise Conflict("already_decided", _("This round is decided already.")) from error
    _follow(review, kind, text, user)
    record(
        actor=user,
        action=f"review.{kind}",
        obj=review,
        project_id=review.draft.brief.project_id,
        content_sha256=row.content_sha256,
        text_sha256=row.text_sha256,
        reasons=row.reasons,
    )
    return row


def _final_text(review: Review, decision: DecisionInput) -> str:
    if decision.decision != DecisionKind.APPROVE_WITH_EDITS:
        return review.text
    text = clean_text(decision.text or "", field="text", required=True)
    if text == review.text:
        raise Invalid("nothing_edited", _("The text is unchanged: approve it as it is."), field="text")
    return text


def _follow(review: Review, kind: DecisionKind, text: str, user: User) -> None:
    Draft.objects.filter(pk=review.draft_id, state=DraftState.IN_REVIEW).update(
        state=_STATE_AFTER[kind],
        text=text,
        content_sha256=sha256(text),
        revision=review.draft.revision + 1,
    )
    if kind == DecisionKind.APPROVE_WITH_EDITS:
        add_revision(review.draft, source=RevisionSource.REVIEWED, text=text, author=user)


def review_for(user: User, review_id: int, act: Act = Act.READ) -> Review:
    reviews = Review.objects.for_user(user).select_related(
        "draft__brief__project", "draft__brief__preset", "draft__job", "author", "submitted_by", "claimed_by"
    )
    review = reviews.filter(pk=review_id).first()
    if review is None:
        raise not_found()
    require(user, review.draft.brief.project, act)
    return review
