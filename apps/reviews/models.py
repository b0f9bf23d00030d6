"""Rounds of review: a text as it was submitted, who holds it, and the one decision on it."""

from typing import Self

import pgtrigger
from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from apps.accounts.models import User
from apps.common.leases import ClockTimestamp
from apps.drafts.models import Draft
from apps.projects.policies import Act, roles_for


class DecisionKind(models.TextChoices):
    APPROVE = "approve", _("Approve")
    APPROVE_WITH_EDITS = "approve_with_edits", _("Approve with edits")
    REQUEST_CHANGES = "request_changes", _("Request changes")
    REJECT = "reject", _("Reject")


APPROVALS = (DecisionKind.APPROVE, DecisionKind.APPROVE_WITH_EDITS)


class ReasonCode(models.TextChoices):
    FACT = "fact", _("Wrong or missing fact")
    STYLE = "style", _("Style")
    POLICY = "policy", _("Policy")
    LENGTH = "length", _("Length")
    GRAMMAR = "grammar", _("Grammar")
    STRUCTURE = "structure", _("Structure")


class ReviewQuerySet(models.QuerySet["Review"]):
    def for_user(self, user: User) -> Self:
        return self.filter(draft__brief__project__memberships__user=user)

    def for_reviewer(self, user: User) -> Self:
        """Those of the projects where this person's role decides."""
        memberships = user.memberships.filter(role__in=roles_for(Act.REVIEW))
        return self.filter(draft__brief__project__in=memberships.values("project"))

    def waiting(self) -> Self:
        return self.filter(decision__isnull=True)

    def claimable_by(self, user: User) -> Self:
        """Waiting, held by nobody else, and neither written nor submitted by this person."""
        free = Q(claimed_by=user) | Q(claimed_by=None) | Q(claim_expires_at__lt=ClockTimestamp())
        return self.waiting().filter(free).exclude(author=user).exclude(submitted_by=user)


_SUBMITTED = pgtrigger.UpdateOf("text", "content_sha256", "author_id", "round")  # type: ignore[no-untyped-call]


class Review(models.Model):
    """One round. `author` is copied from the draft so that the database can refuse a self-review."""

    draft = models.ForeignKey(Draft, on_delete=models.CASCADE, related_name="reviews")
    round = models.PositiveSmallIntegerField()
    text = models.TextField()
    content_sha256 = models.CharField(max_length=64)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    submitted_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    submitted_at = models.DateTimeField(db_default=ClockTimestamp())
    claimed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    claim_expires_at = models.DateTimeField(null=True, blank=True)

    objects = ReviewQuerySet.as_manager()

    class Meta:
        ordering = ["submitted_at", "pk"]
        constraints = [
            models.UniqueConstraint(fields=["draft", "round"], name="review_round_unique"),
            models.CheckConstraint(
                condition=Q(claimed_by=None) | ~Q(claimed_by=F("author")) & ~Q(claimed_by=F("submitted_by")),
                name="nobody_claims_own_draft",
            ),
        ]
        triggers = [
            pgtrigger.Protect(
                name="submitted_text_never_changes",
                operation=_SUBMITTED,
            )
        ]

    def __str__(self) -> str:
        return f"review of {self.draft}, round {self.round}"


class Decision(models.Model):
    """What a person decided on the text that they saw (`content_sha256`), and the text that came of it."""

    review = models.OneToOneField(Review, on_delete=models.CASCADE, primary_key=True, related_name="decision")
    decision = models.CharField(max_length=20, choices=DecisionKind)
    text = models.TextField()
    text_sha256 = models.CharField(max_length=64)
    content_sha256 = models.CharField(max_length=64)
    reasons = ArrayField(models.CharField(max_length=12, choices=ReasonCode), default=list, blank=True)
    comment = models.TextField(blank=True)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    decided_at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        ordering = ["-decided_at"]
        constraints = [
            models.CheckConstraint(condition=~Q(decided_by=F("author")), name="nobody_decides_on_own_draft"),
            models.CheckConstraint(
                condition=~Q(decision=DecisionKind.REJECT) | ~Q(reasons=[]), name="rejection_has_reason"
            ),
        ]
        triggers = [
            pgtrigger.Protect(name="decision_never_changes", operation=pgtrigger.Update),
            pgtrigger.Trigger(
                name="decision_matches_review",
                operation=pgtrigger.Insert,
                when=pgtrigger.Before,
                func="""
                    IF NOT EXISTS (
                        SELECT 1 FROM reviews_review r JOIN drafts_draft d ON d.id = r.draft_id
                        WHERE r.id = NEW.review_id AND r.content_sha256 = NEW.content_sha256
                          AND r.author_id = NEW.author_id AND d.author_id = NEW.author_id
                          AND r.submitted_by_id <> NEW.decided_by_id
                    ) THEN
                        RAISE EXCEPTION 'a decision binds to the text and the author of its review';
                    END IF;
                    RETURN NEW;
                """,
            ),
        ]

    def __str__(self) -> str:
        return f"{self.decision} of {self.review_id}"


class Comment(models.Model):
    review = models.ForeignKey(Review, on_delete=models.CASCADE, related_name="comments")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    text = models.TextField()
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        ordering = ["created_at", "pk"]

    def __str__(self) -> str:
        return self.text[:60]
