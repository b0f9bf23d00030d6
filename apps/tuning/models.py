"""What decisions teach: samples, frozen datasets, runs, the adapters they make, and what is live."""

import pgtrigger
from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from apps.common.leases import ACTIVE_STATES, LEGAL_TRANSITIONS, ClockTimestamp, Leased, LeasedQuerySet
from apps.projects.models import Project
from apps.reviews.models import Decision


class Split(models.TextChoices):
    TRAIN = "train", _("Training")
    HELDOUT = "heldout", _("Held back")


class Artifact(models.Model):
    """A file in the store, named by its content. The row comes last: no row, no file to rely on."""

    sha256 = models.CharField(max_length=64, primary_key=True)
    size = models.PositiveBigIntegerField()
    kind = models.CharField(max_length=20)
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        triggers = [pgtrigger.Protect(name="artifact_never_changes", operation=pgtrigger.Update)]

    def __str__(self) -> str:
        return f"{self.kind} {self.sha256[:12]}"


class Sample(models.Model):
    """An approved text put to use. Its split is chosen once per brief and kept for ever."""

    decision = models.OneToOneField(Decision, on_delete=models.CASCADE, related_name="sample")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="samples")
    brief_id = models.BigIntegerField(db_index=True)
    split = models.CharField(max_length=8, choices=Split)
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        ordering = ["pk"]
        triggers = [
            pgtrigger.Protect(
                name="split_never_changes",
                operation=pgtrigger.UpdateOf("split", "decision_id"),  # type: ignore[no-untyped-call]
            )
        ]

    def __str__(self) -> str:
        return f"{self.split} sample of decision {self.decision_id}"


class Dataset(models.Model):
    """Samples frozen for a run: two files in the store and a manifest that names every decision."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="datasets")
    sha256 = models.CharField(max_length=64)
    manifest = models.JSONField()
    train_file = models.ForeignKey(Artifact, on_delete=models.PROTECT, related_name="+")
    heldout_file = models.ForeignKey(Artifact, on_delete=models.PROTECT, related_name="+")
    num_train = models.PositiveIntegerField()
    num_heldout = models.PositiveIntegerField()
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "sha256"], name="dataset_unique_in_project")
        ]
        triggers = [pgtrigger.Protect(name="dataset_never_changes", operation=pgtrigger.Update)]

    def __str__(self) -> str:
        return f"dataset {self.sha256[:12]}: {self.num_train} + {self.num_heldout}"


class Run(Leased):
    """One training. The page is a viewer of this row and its metrics."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="runs")
    dataset = models.ForeignKey(Dataset, null=True, blank=True, on_delete=models.PROTECT, related_name="runs")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    config = models.JSONField(default=dict, blank=True)
    phase = models.CharField(max_length=20, blank=True)
    message = models.TextField(blank=True)
    step = models.PositiveIntegerField(default=0)
    num_steps = models.PositiveIntegerField(default=0)
    progress_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)

    objects = LeasedQuerySet["Run"].as_manager()

    class Meta(Leased.Meta):
        ordering = ["-pk"]
        constraints = [
            *Leased.Meta.constraints,
            models.UniqueConstraint(
                fields=["project"], name="one_active_run_per_project", condition=Q(state__in=ACTIVE_STATES)
            ),
        ]
        triggers = [pgtrigger.FSM(name="legal_run_states", field="state", transitions=LEGAL_TRANSITIONS)]

    def __str__(self) -> str:
        return f"run {self.pk} of {self.project}"

    @property
    def is_nightly(self) -> bool:
        return self.created_by_id is None


class Metric(models.Model):
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="metrics")
    kind = models.CharField(max_length=8)  # step or eval
    step = models.PositiveIntegerField()
    values = models.JSONField()
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["run", "kind", "step"], name="metric_once_per_step")]

    def __str__(self) -> str:
        return f"{self.kind} {self.step} of run {self.run_id}"


class Adapter(models.Model):
    """A trained LoRA. Its version is never used twice; `sha256` is that of its sealed folder."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="adapters")
    run = models.OneToOneField(Run, on_delete=models.PROTECT, related_name="adapter")
    version = models.PositiveIntegerField()
    sha256 = models.CharField(max_length=64, unique=True)
    base_sha256 = models.CharField(max_length=64)
    files = models.JSONField()
    gate = models.JSONField()
    gate_passed = models.BooleanField()
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        ordering = ["-version"]
        constraints = [models.UniqueConstraint(fields=["project", "version"], name="adapter_version_unique")]
        triggers = [pgtrigger.Protect(name="adapter_never_changes", operation=pgtrigger.Update)]

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        return f"p{self.project_id}-v{self.version}"


class ReleaseKind(models.TextChoices):
    PROMOTION = "promotion", _("Promotion")
    ROLLBACK = "rollback", _("Roll back")


class Release(models.Model):
    """What is live: the row with the highest number of its project; without an adapter, the base model.

    `previous` was live before a promotion, `restores` is what a roll back brought back. Rows are
    only added, so the table answers who put what live, and when.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="releases")
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=ReleaseKind)
    adapter = models.ForeignKey(Adapter, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    previous = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    restores = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="release_number_unique")]
        triggers = [
            pgtrigger.Protect(name="release_never_changes", operation=pgtrigger.Update),
            pgtrigger.Trigger(
                name="release_needs_passed_gate",
                operation=pgtrigger.Insert,
                when=pgtrigger.Before,
                func="""
                    IF NEW.adapter_id IS NOT NULL AND NOT EXISTS (
                        SELECT 1 FROM tuning_adapter a
                        WHERE a.id = NEW.adapter_id AND a.gate_passed AND a.project_id = NEW.project_id
                    ) THEN
                        RAISE EXCEPTION 'an adapter goes live only after its gate, in its own project';
                    END IF;
                    RETURN NEW;
                """,
            ),
        ]

    def __str__(self) -> str:
        return f"release {self.number} of {self.project}"

    @property
    def label(self) -> str:
        return self.adapter.name if self.adapter else str(_("Base model"))


class NightlyRun(models.Model):
    """One night of one project: the run it started, or why it was skipped. Never two on one date."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="nights")
    local_date = models.DateField()
    run = models.OneToOneField(Run, null=True, blank=True, on_delete=models.SET_NULL, related_name="night")
    skip_reason = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        ordering = ["-local_date"]
        constraints = [models.UniqueConstraint(fields=["project", "local_date"], name="one_night_per_date")]

    def __str__(self) -> str:
        return f"{self.local_date} of {self.project}"
