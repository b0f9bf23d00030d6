"""Who may do what in a project. Every service and page asks here; a foreign project is 404."""

from enum import StrEnum

from django.utils.translation import gettext as _

from apps.accounts.models import User
from apps.common.errors import Forbidden, NotFound
from apps.projects.models import Project, Role


class Act(StrEnum):
    READ = "read"
    WRITE = "write"  # briefs and drafts
    REVIEW = "review"
    STYLE = "style"  # presets
    MANAGE = "manage"  # members, settings
    TRAIN = "train"  # runs, adapters, releases


_ROLES: dict[Act, frozenset[str]] = {
    Act.READ: frozenset(Role.values),
    Act.WRITE: frozenset({Role.ADMIN, Role.EDITOR}),
    Act.REVIEW: frozenset({Role.ADMIN, Role.REVIEWER}),
    Act.STYLE: frozenset({Role.ADMIN, Role.EDITOR}),
    Act.MANAGE: frozenset({Role.ADMIN}),
    Act.TRAIN: frozenset({Role.ADMIN}),
}


def can(role: str | None, act: Act) -> bool:
    return role in _ROLES[act]


def roles_for(act: Act) -> frozenset[str]:
    return _ROLES[act]


def require(user: User, project: Project, act: Act) -> None:
    """Raises NotFound for a stranger, Forbidden for a member whose role is not enough."""
    role = project.role_of(user)
    if role is None:
        raise not_found()
    if not can(role, act):
        raise Forbidden("forbidden", _("Your role here does not allow this. Ask an admin of the project."))


def project_for(user: User, project_id: int, act: Act = Act.READ) -> Project:
    project = Project.objects.for_user(user).filter(pk=project_id).first()
    if project is None:
        raise not_found()
    require(user, project, act)
    return project


def not_found() -> NotFound:
    return NotFound("not_found", _("There is nothing here, or it belongs to a project that you are not in."))
