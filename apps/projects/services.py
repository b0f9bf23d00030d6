"""Acts on projects, members and briefs."""

from dataclasses import dataclass, replace
from typing import Any

from django.db import IntegrityError, transaction
from django.dispatch import Signal
from django.utils.translation import gettext as _

from apps.accounts.models import User
from apps.audit.services import record
from apps.common.errors import Conflict, Invalid
from apps.common.text import clean_line, clean_text
from apps.common.words import normalised
from apps.projects.models import Brief, Membership, Project, Role
from apps.projects.policies import Act, not_found, project_for, require

MAX_FACTS = 20
MIN_WORDS, MAX_WORDS = 20, 2000

project_created = Signal()
"""Sent inside the transaction with `project` and `user`: rooms above add what a new project starts with."""


@transaction.atomic
def create_project(*, user: User, name: str, description: str = "") -> Project:
    name = clean_line(name, field="name", max_chars=120, required=True)
    description = clean_text(description, field="description", max_chars=2000)
    try:
        with transaction.atomic():
            project = Project.objects.create(name=name, description=description, created_by=user)
    except IntegrityError as error:
        raise Conflict("name_taken", _("A project of this name exists. Choose another name.")) from error
    Membership.objects.create(project=project, user=user, role=Role.ADMIN)
    record(actor=user, action="project.created", obj=project, project_id=project.pk, name=name)
    project_created.send(sender=Project, project=project, user=user)
    return project


@transaction.atomic
def set_member(*, user: User, project_id: int, username: str, role: str) -> Membership:
    """Add a person or change their role; the last admin stays one."""
    project = project_for(user, project_id, Act.MANAGE)
    if role not in Role.values:
        raise Invalid("unknown_role", _("Choose admin, editor or reviewer."), field="role")
    username = clean_line(username, field="username", max_chars=150)
    member = User.objects.filter(username=username, is_active=True).first()
    if member is None:
        raise Invalid("unknown_user", _("Nobody here has this user name."), field="username")
    if role != Role.ADMIN:
        _keep_an_admin(project, losing=member)
    membership, _created = Membership.objects.update_or_create(
        project=project, user=member, defaults={"role": role}
    )
    record(actor=user, action="member.set", obj=membership, project_id=project.pk, user=member.pk, role=role)
    return membership


@transaction.atomic
def remove_member(*, user: User, project_id: int, member_id: int) -> None:
    project = project_for(user, project_id, Act.MANAGE)
    membership = project.memberships.filter(user_id=member_id).first()
    if membership is None:
        raise not_found()
    _keep_an_admin(project, losing=membership.user)
    record(actor=user, action="member.removed", obj=membership, project_id=project.pk, user=member_id)
    membership.delete()


def _keep_an_admin(project: Project, *, losing: User) -> None:
    admins = project.memberships.select_for_update().filter(role=Role.ADMIN)
    if {membership.user_id for membership in admins} == {losing.pk}:
        raise Conflict("last_admin", _("A project needs an admin. Make somebody else admin first."))


@dataclass(frozen=True, kw_only=True)
class BriefInput:
    """The brief form as it was sent; `cleaned` refuses what cannot be written from."""

    subject: str
    preset_id: int
    audience: str = ""
    angle: str = ""
    must_say: tuple[str, ...] = ()
    must_not_say: tuple[str, ...] = ()
    tone: str = ""
    num_words: int = 120

    def cleaned(self) -> "BriefInput":
        if not MIN_WORDS <= self.num_words <= MAX_WORDS:
            raise Invalid(
                "length_out_of_range",
                _("Ask for %(min)s to %(max)s words.") % {"min": MIN_WORDS, "max": MAX_WORDS},
                field="num_words",
            )
        cleaned = replace(
            self,
            subject=clean_line(self.subject, field="subject", max_chars=300, required=True),
            audience=clean_line(self.audience, field="audience", max_chars=300),
            angle=clean_line(self.angle, field="angle", max_chars=500),
            must_say=_clean_items(self.must_say, field="must_say", max_chars=300),
            must_not_say=_clean_items(self.must_not_say, field="must_not_say", max_chars=120),
            tone=clean_line(self.tone, field="tone", max_chars=120),
        )
        _refuse_contradiction(cleaned)
        return cleaned


def _clean_items(items: tuple[str, ...], *, field: str, max_chars: int) -> tuple[str, ...]:
    cleaned = tuple(line for item in items if (line := clean_line(item, field=field, max_chars=max_chars)))
    if len(cleaned) > MAX_FACTS:
        raise Invalid(
            "too_many_items", _("At most %(max)s lines fit here.") % {"max": MAX_FACTS}, field=field
        )
    return cleaned


def _refuse_contradiction(brief: BriefInput) -> None:
    """No text can say and not say the same."""
    lines = [(line, normalised(line)) for line in (brief.subject, *brief.must_say)]
    for term in brief.must_not_say:
        phrase = normalised(term)
        for line, words in lines:
            if phrase.strip() and phrase in words:
                raise Invalid(
                    "contradiction",
                    _("“%(term)s” must not be said, but “%(line)s” says it. Take it out of one of the two.")
                    % {"term": term, "line": line},
                    field="must_not_say",
                )


@transaction.atomic
def create_brief(*, user: User, project_id: int, brief: BriefInput) -> Brief:
    project = project_for(user, project_id, Act.WRITE)
    row = Brief(project=project, created_by=user)
    _fill(row, project, brief.cleaned())
    row.save()
    record(actor=user, action="brief.created", obj=row, project_id=project.pk, subject=row.subject)
    return row


@transaction.atomic
def update_brief(*, user: User, brief_id: int, brief: BriefInput) -> Brief:
    """Drafts that exist keep the brief that they were written from (its hash is in their passport)."""
    row = brief_for(user, brief_id, Act.WRITE)
    _fill(row, row.project, brief.cleaned())
    row.save()
    record(actor=user, action="brief.updated", obj=row, project_id=row.project_id, subject=row.subject)
    return row


def _fill(row: Brief, project: Project, brief: BriefInput) -> None:
    presets: Any = project.presets  # type: ignore[attr-defined]  # reverse side of styles.StylePreset
    preset = presets.filter(pk=brief.preset_id).first()
    if preset is None:
        raise Invalid("unknown_preset", _("Choose one of the project's style presets."), field="preset_id")
    row.preset = preset
    row.subject, row.audience, row.angle, row.tone = brief.subject, brief.audience, brief.angle, brief.tone
    row.must_say, row.must_not_say = list(brief.must_say), list(brief.must_not_say)
    row.num_words = brief.num_words


def brief_for(user: User, brief_id: int, act: Act = Act.READ) -> Brief:
    brief = Brief.objects.for_user(user).select_related("project", "preset").filter(pk=brief_id).first()
    if brief is None:
        raise not_found()
    require(user, brief.project, act)
    return brief
