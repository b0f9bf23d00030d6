"""Reviews on the pages of rooms below this one."""

from django import template
from django.contrib.auth.models import AnonymousUser

from apps.accounts.models import User
from apps.drafts.models import Draft
from apps.projects.models import Project
from apps.reviews import selectors
from apps.reviews.models import ReasonCode, Review

register = template.Library()


@register.simple_tag
def last_review(draft: Draft) -> Review | None:
    return selectors.last_review(draft)


@register.simple_tag
def num_waiting(project: Project) -> int:
    return selectors.num_waiting(project)


@register.simple_tag
def num_claimable(user: User | AnonymousUser) -> int:
    return selectors.num_claimable(user) if isinstance(user, User) else 0


@register.filter
def reason_label(code: str) -> str:
    return str(ReasonCode(code).label)
