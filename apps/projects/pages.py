"""What every page inside a project shows: the project, and what this person may do in it."""

from typing import Any

from apps.accounts.models import User
from apps.projects.models import Project
from apps.projects.policies import Act, can


def in_project(user: User, project: Project, *, tab: str = "") -> dict[str, Any]:
    role = project.role_of(user)
    return {"project": project, "tab": tab, "may": {act.value: can(role, act) for act in Act}}
