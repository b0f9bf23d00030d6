"""Diffs on pages."""

from django import template

from apps.drafts.diff import Piece, diff, num_hunks

register = template.Library()


@register.simple_tag
def diff_of(old: str, new: str) -> list[Piece]:
    return diff(old, new)


@register.filter
def hunks(pieces: list[Piece]) -> int:
    return num_hunks(pieces)
