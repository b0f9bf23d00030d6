"""Checks on the pages of rooms below this one."""

from django import template

from apps.projects.models import Brief
from apps.quality.checks import Check, check_text

register = template.Library()


@register.simple_tag
def checks_of(text: str, brief: Brief) -> list[Check]:
    return check_text(
        text, must_say=brief.must_say, must_not_say=brief.must_not_say, num_words=brief.num_words
    )
