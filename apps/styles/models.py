"""Style presets: a name that stays, and versions that never change."""

import pgtrigger
from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _

from apps.common.leases import ClockTimestamp
from apps.projects.models import Project


class Kind(models.TextChoices):
    NEWS = "news", _("News")
    FICTION = "fiction", _("Fiction")
    MARKETING = "marketing", _("Marketing")
    CUSTOM = "custom", _("Own style")


class StylePreset(models.Model):
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="presets")
    name = models.CharField(max_length=80)
    kind = models.CharField(max_length=12, choices=Kind, default=Kind.CUSTOM)
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint("project", Lower("name"), name="preset_name_unique_in_project")
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def current(self) -> "StylePresetVersion":
        return self.versions.latest("number")

    @property
    def style_name(self) -> str:
        """What the model is told: the kind it was taught, or the name of an own style."""
        return self.name if self.kind == Kind.CUSTOM else self.kind


class StylePresetVersion(models.Model):
    preset = models.ForeignKey(StylePreset, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    instructions = models.TextField(blank=True)
    temperature = models.FloatField(default=0.6)
    top_k = models.PositiveIntegerField(default=40)
    top_p = models.FloatField(default=0.95)
    min_p = models.FloatField(default=0.0)
    repetition_penalty = models.FloatField(default=1.05)
    max_tokens = models.PositiveIntegerField(default=512)
    note = models.CharField(max_length=200, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["preset", "number"], name="preset_version_unique"),
            models.CheckConstraint(
                condition=Q(temperature__gte=0, temperature__lte=2), name="preset_temperature_in_range"
            ),
        ]
        triggers = [pgtrigger.Protect(name="version_never_changes", operation=pgtrigger.Update)]

    def __str__(self) -> str:
        return f"{self.preset} v{self.number}"
