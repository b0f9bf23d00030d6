"""What is live, on the pages of rooms below this one."""

from django import template

from apps.projects.models import Project
from apps.tuning import selectors
from apps.tuning.models import Release

register = template.Library()


@register.simple_tag
def live_release(project: Project) -> Release | None:
    return selectors.live_release(project)
