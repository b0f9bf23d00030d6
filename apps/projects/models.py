"""Projects, who is in them, and the briefs that ask for texts."""

from typing import Self

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _

from apps.accounts.models import User
from apps.common.leases import ClockTimestamp


class Role(models.TextChoices):
    ADMIN = "admin", _("Admin")
    EDITOR = "editor", _("Editor")
    REVIEWER = "reviewer", _("Reviewer")


class ProjectQuerySet(models.QuerySet["Project"]):
    def for_user(self, user: User) -> Self:
        return self.filter(memberships__user=user)


class Project(models.Model):
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    objects = ProjectQuerySet.as_manager()

    class Meta:
        ordering = [Lower("name")]
        constraints = [
            models.UniqueConstraint(Lower("name"), name="project_name_unique"),
            models.CheckConstraint(condition=~Q(name=""), name="project_has_name"),
        ]

    def __str__(self) -> str:
        return self.name

    def role_of(self, user: User) -> str | None:
        return self.memberships.filter(user=user).values_list("role", flat=True).first()


class Membership(models.Model):
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=12, choices=Role)
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="one_role_per_member"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="membership_role_known"),
        ]

    def __str__(self) -> str:
        return f"{self.user}: {self.role} of {self.project}"


class BriefQuerySet(models.QuerySet["Brief"]):
    def for_user(self, user: User) -> Self:
        return self.filter(project__memberships__user=user)


class Brief(models.Model):
    """What an editor asks for. The preset is named as text: styles stands above projects."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="briefs")
    preset = models.ForeignKey("styles.StylePreset", on_delete=models.PROTECT, related_name="briefs")
    subject = models.CharField(max_length=300)
    audience = models.CharField(max_length=300, blank=True)
    angle = models.CharField(max_length=500, blank=True)
    must_say = ArrayField(models.CharField(max_length=300), default=list, blank=True)
    must_not_say = ArrayField(models.CharField(max_length=120), default=list, blank=True)
    tone = models.CharField(max_length=120, blank=True)
    num_words = models.PositiveIntegerField(default=120)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=ClockTimestamp())

    objects = BriefQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-pk"]
        constraints = [
            models.CheckConstraint(condition=~Q(subject=""), name="brief_has_subject"),
            models.CheckConstraint(
                condition=Q(num_words__gte=20, num_words__lte=2000), name="brief_length_in_range"
            ),
        ]

    def __str__(self) -> str:
        return self.subject
