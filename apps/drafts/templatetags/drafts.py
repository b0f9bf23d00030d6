"""Diffs and figures of drafts on pages."""

from django import template

from apps.drafts.diff import Piece, diff, num_hunks
from apps.drafts.models import Draft
from apps.drafts.selectors import expected_wait_s, queue_position

register = template.Library()


@register.simple_tag
def diff_of(old: str, new: str) -> list[Piece]:
    return diff(old, new)


@register.filter
def hunks(pieces: list[Piece]) -> int:
    return num_hunks(pieces)


@register.simple_tag
def place_in_line(draft: Draft) -> dict[str, int | None]:
    position = queue_position(draft)
    return {"position": position, "wait_s": expected_wait_s(position)}


@register.simple_tag
def first_token_s(draft: Draft) -> float | None:
    """Seconds from the click to the first token: what the editor waited."""
    if draft.first_token_at is None:
        return None
    return round((draft.first_token_at - draft.created_at).total_seconds(), 1)
