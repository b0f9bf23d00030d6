"""Briefs by the hundred: a file of rows, each of which becomes a brief and its drafts."""

from typing import Self

import pgtrigger
from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from apps.accounts.models import User
from apps.common.leases import ClockTimestamp
from apps.drafts.models import Draft, DraftRequest
from apps.projects.models import Brief, Project
from apps.styles.models import StylePreset

MAX_CANDIDATES = 4


class BatchState(models.TextChoices):
    DRAFT = "draft", _("Dry run")
    OPEN = "open", _("Running")
    PAUSED = "paused", _("Paused")
    CANCELLED = "cancelled", _("Cancelled")


class BatchQuerySet(models.QuerySet["Batch"]):
    def for_user(self, user: User) -> Self:
        return self.filter(project__memberships__user=user)


class Batch(models.Model):
    """An open batch whose rows have all ended is done: that is read from the rows, and stored nowhere."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="batches")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    client_request_id = models.CharField(max_length=64)
    name = models.CharField(max_length=120)
    preset = models.ForeignKey(StylePreset, on_delete=models.PROTECT, related_name="+")
    columns = ArrayField(models.TextField())
    mapping = models.JSONField(default=dict)
    candidates = models.PositiveSmallIntegerField(default=1)
    seed = models.BigIntegerField(null=True, blank=True)
    state = models.CharField(max_length=12, choices=BatchState, default=BatchState.DRAFT)
    hold_reason = models.TextField(blank=True)
    running_since = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    objects = BatchQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]
        verbose_name_plural = "batches"
        constraints = [
            models.UniqueConstraint(fields=["owner", "client_request_id"], name="one_batch_per_click"),
            models.CheckConstraint(
                condition=Q(candidates__gte=1, candidates__lte=MAX_CANDIDATES),
                name="batch_candidates_in_range",
            ),
            models.CheckConstraint(
                condition=Q(state=BatchState.DRAFT, running_since__isnull=True)
                | ~Q(state=BatchState.DRAFT) & Q(running_since__isnull=False),
                name="batch_runs_since_it_started",
            ),
        ]
        triggers = [
            pgtrigger.FSM(
                name="legal_batch_states",
                field="state",
                transitions=[
                    ("draft", "open"),
                    ("open", "paused"),
                    ("paused", "open"),
                    ("open", "cancelled"),
                    ("paused", "cancelled"),
                ],
            )
        ]

    def __str__(self) -> str:
        return self.name


class RowState(models.TextChoices):
    REFUSED = "refused", _("Left out")  # no brief can be made of it; `problems` says why
    WAITING = "waiting", _("Waiting")
    WRITING = "writing", _("Writing")
    READY = "ready", _("Ready")
    FAILED = "failed", _("Failed")
    CANCELLED = "cancelled", _("Cancelled")


UNFINISHED = (RowState.WAITING, RowState.WRITING)


class BatchRow(models.Model):
    """A line of the file. `fields` are its cells by column: a text, or a list of texts from JSON."""

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="rows")
    number = models.PositiveIntegerField()
    line = models.PositiveIntegerField()
    fields = models.JSONField()
    problems = models.JSONField(default=list, blank=True)
    state = models.CharField(max_length=12, choices=RowState, default=RowState.WAITING)
    tries = models.PositiveSmallIntegerField(default=0)
    brief = models.OneToOneField(
        Brief, null=True, blank=True, on_delete=models.CASCADE, related_name="batch_row"
    )
    request = models.OneToOneField(
        DraftRequest, null=True, blank=True, on_delete=models.CASCADE, related_name="batch_row"
    )
    error = models.TextField(blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["batch", "number"], name="row_number_unique_in_batch"),
            models.CheckConstraint(
                condition=~Q(state__in=[RowState.WRITING, RowState.READY]) | Q(request__isnull=False),
                name="written_row_has_request",
            ),
            models.CheckConstraint(
                condition=Q(state=RowState.REFUSED) ^ Q(problems=[]), name="only_refused_rows_have_problems"
            ),
        ]
        indexes = [
            models.Index(
                fields=["batch", "state", "number"],
                name="row_unfinished",
                condition=Q(state__in=["waiting", "writing"]),
            ),
            models.Index(fields=["batch", "finished_at"], name="row_finished"),
        ]
        triggers = [
            pgtrigger.FSM(
                name="legal_row_states",
                field="state",
                transitions=[
                    ("refused", "waiting"),
                    ("waiting", "refused"),
                    ("waiting", "writing"),
                    ("waiting", "failed"),
                    ("waiting", "cancelled"),
                    ("writing", "ready"),
                    ("writing", "failed"),
                    ("writing", "cancelled"),
                    ("failed", "waiting"),
                ],
            )
        ]

    def __str__(self) -> str:
        return f"row {self.number} of {self.batch}"

    @property
    def title(self) -> str:
        """The subject of its brief; before there is one, what the file says."""
        if self.brief:
            return self.brief.subject
        cell = self.fields.get(self.batch.mapping.get("subject", ""), "")
        return "; ".join(cell) if isinstance(cell, list) else cell

    @property
    def drafts(self) -> list[Draft]:
        """Of the last try, in their order."""
        return sorted(self.request.drafts.all(), key=lambda draft: draft.candidate) if self.request else []
