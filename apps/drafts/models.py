"""Drafts, the jobs that write them, and the chunks in which they arrive."""

from typing import Self

import pgtrigger
from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Max, Q
from django.utils.translation import gettext_lazy as _

from apps.accounts.models import User
from apps.common.leases import LEGAL_TRANSITIONS, ClockTimestamp, JobState, Leased, LeasedQuerySet
from apps.projects.models import Brief
from apps.styles.models import StylePresetVersion


class DraftState(models.TextChoices):
    QUEUED = "queued", _("Waiting")
    WRITING = "writing", _("Writing")
    READY = "ready", _("Ready")
    STOPPED = "stopped", _("Stopped")
    FAILED = "failed", _("Failed")
    IN_REVIEW = "in_review", _("In review")
    CHANGES_REQUESTED = "changes_requested", _("Changes requested")
    APPROVED = "approved", _("Approved")
    REJECTED = "rejected", _("Rejected")


LIVE_STATES = (DraftState.QUEUED, DraftState.WRITING)
EDITABLE_STATES = (DraftState.READY, DraftState.STOPPED, DraftState.CHANGES_REQUESTED)


class DraftRequest(models.Model):
    """One click on "Write": its candidates belong together, and a second click finds it again."""

    brief = models.ForeignKey(Brief, on_delete=models.CASCADE, related_name="requests")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    client_request_id = models.CharField(max_length=64)
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "client_request_id"], name="one_request_per_click")
        ]

    def __str__(self) -> str:
        return f"{self.client_request_id} for {self.brief}"


class DraftQuerySet(models.QuerySet["Draft"]):
    def for_user(self, user: User) -> Self:
        return self.filter(brief__project__memberships__user=user)


class Draft(models.Model):
    """A text on its way: as generated (chunks), as edited (text), as decided (reviews)."""

    brief = models.ForeignKey(Brief, on_delete=models.CASCADE, related_name="drafts")
    request = models.ForeignKey(DraftRequest, on_delete=models.CASCADE, related_name="drafts")
    candidate = models.PositiveSmallIntegerField()
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="drafts")
    preset_version = models.ForeignKey(StylePresetVersion, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=20, choices=DraftState, default=DraftState.QUEUED)

    text = models.TextField(blank=True)
    revision = models.PositiveIntegerField(default=0)
    content_sha256 = models.CharField(max_length=64, blank=True)
    generated_text = models.TextField(blank=True)

    # The stream: `attempt` grows only when a text starts over, `last_seq` with every chunk.
    attempt = models.PositiveSmallIntegerField(default=1)
    last_seq = models.PositiveIntegerField(default=0)
    num_tokens = models.PositiveIntegerField(default=0)

    # The passport: what it takes to write the same text again.
    seed = models.BigIntegerField()
    temperature = models.FloatField()
    messages = models.JSONField(default=list)
    must_say = ArrayField(models.CharField(max_length=300), default=list, blank=True)
    must_not_say = ArrayField(models.CharField(max_length=120), default=list, blank=True)
    release = models.ForeignKey(
        "tuning.Release", null=True, blank=True, on_delete=models.PROTECT, related_name="drafts"
    )
    adapter_sha256 = models.CharField(max_length=64, blank=True)
    model_name = models.CharField(max_length=120, blank=True)
    model_sha256 = models.CharField(max_length=64, blank=True)
    finish_reason = models.CharField(max_length=20, blank=True)

    created_at = models.DateTimeField(db_default=ClockTimestamp())
    started_at = models.DateTimeField(null=True, blank=True)
    first_token_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = DraftQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "candidate"]
        constraints = [
            models.UniqueConstraint(fields=["request", "candidate"], name="candidate_unique_in_request"),
            models.CheckConstraint(
                condition=Q(state__in=[*LIVE_STATES, DraftState.FAILED]) | ~Q(content_sha256=""),
                name="finished_draft_has_hash",
            ),
        ]
        triggers = [
            pgtrigger.FSM(
                name="legal_draft_states",
                field="state",
                transitions=[
                    ("queued", "writing"),
                    ("queued", "stopped"),
                    ("queued", "failed"),
                    ("writing", "queued"),
                    ("writing", "ready"),
                    ("writing", "stopped"),
                    ("writing", "failed"),
                    ("ready", "in_review"),
                    ("stopped", "in_review"),
                    ("changes_requested", "in_review"),
                    ("in_review", "approved"),
                    ("in_review", "changes_requested"),
                    ("in_review", "rejected"),
                ],
            )
        ]

    def __str__(self) -> str:
        return f"draft {self.pk} of {self.brief}"

    @property
    def is_live(self) -> bool:
        return self.state in LIVE_STATES

    @property
    def is_editable(self) -> bool:
        return self.state in EDITABLE_STATES

    @property
    def stream_path(self) -> str:
        return f"/ws/drafts/{self.pk}/"


class Priority(models.IntegerChoices):
    """People wait for the first, nobody sits before the second."""

    INTERACTIVE = 0
    BATCH = 10


class JobQuerySet(LeasedQuerySet["Job"]):
    def next_turn(self, *, user: User, priority: Priority) -> int:
        """The turn of a user's next job: one round after their last one, and not before the round that runs.

        This is start-time fair queueing: however many jobs one person has queued, another's first
        is served after at most one of theirs. A job that goes round again keeps its turn.
        """
        rivals = self.filter(priority=priority)
        own = rivals.filter(state=JobState.QUEUED, user=user).aggregate(last=Max("turn"))["last"]
        claimed = rivals.filter(fence__gt=0).aggregate(last=Max("turn"))["last"]
        return 1 + max(own or 0, claimed or 0)

    def up_to(self, job: "Job") -> Self:
        """The queued jobs before this one, and this one."""
        return self.filter(state=JobState.QUEUED).filter(
            Q(priority__lt=job.priority)
            | Q(priority=job.priority, turn__lt=job.turn)
            | Q(priority=job.priority, turn=job.turn, pk__lte=job.pk)
        )


class Job(Leased):
    """The work of writing one draft. Claimed, leased and fenced: see apps.common.leases."""

    claim_order = ("priority", "turn", "pk")

    draft = models.OneToOneField(Draft, on_delete=models.CASCADE, related_name="job")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    turn = models.PositiveBigIntegerField(default=0)

    objects = JobQuerySet.as_manager()

    class Meta(Leased.Meta):
        indexes = [
            models.Index(
                fields=["priority", "turn", "id"], name="job_in_line", condition=Q(state=JobState.QUEUED)
            ),
            models.Index(
                fields=["user", "priority", "turn"], name="job_of_user", condition=Q(state=JobState.QUEUED)
            ),
            models.Index(fields=["priority", "turn"], name="job_claimed", condition=Q(fence__gt=0)),
            models.Index(fields=["finished_at"], name="job_ended", condition=Q(finished_at__isnull=False)),
        ]
        triggers = [pgtrigger.FSM(name="legal_job_states", field="state", transitions=LEGAL_TRANSITIONS)]

    def __str__(self) -> str:
        return f"job of {self.draft_id}"


class Chunk(models.Model):
    """A piece of a stream, committed before anybody sees it."""

    draft = models.ForeignKey(Draft, on_delete=models.CASCADE, related_name="chunks")
    attempt = models.PositiveSmallIntegerField()
    seq = models.PositiveIntegerField()
    text = models.TextField()
    token_ids = ArrayField(models.BigIntegerField(), default=list)
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        ordering = ["attempt", "seq"]
        constraints = [
            models.UniqueConstraint(fields=["draft", "attempt", "seq"], name="chunk_seq_unique"),
            models.CheckConstraint(condition=Q(seq__gte=1), name="chunk_seq_from_one"),
        ]
        triggers = [pgtrigger.Protect(name="chunk_append_only", operation=pgtrigger.Update)]

    def __str__(self) -> str:
        return f"{self.draft_id}/{self.attempt}/{self.seq}"


class RevisionSource(models.TextChoices):
    GENERATED = "generated", _("Generated")
    SUBMITTED = "submitted", _("Submitted")
    REVIEWED = "reviewed", _("Edited in review")


class Revision(models.Model):
    """A text worth keeping: as generated, as submitted, as approved. Autosaves are not."""

    draft = models.ForeignKey(Draft, on_delete=models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    source = models.CharField(max_length=12, choices=RevisionSource)
    text = models.TextField()
    sha256 = models.CharField(max_length=64)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["draft", "number"], name="revision_unique")]
        triggers = [pgtrigger.Protect(name="revision_never_changes", operation=pgtrigger.Update)]

    def __str__(self) -> str:
        return f"{self.draft_id} r{self.number} {self.source}"


class Worker(models.Model):
    """A process that does work, by its last sign of life: what /healthz and the desk show."""

    name = models.CharField(max_length=100, primary_key=True)
    role = models.CharField(max_length=12)
    seen_at = models.DateTimeField(db_default=ClockTimestamp())
    info = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"{self.role} {self.name}"
