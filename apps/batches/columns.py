"""From the columns of a file to briefs: which column holds what, and what is wrong with a row."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from apps.batches.files import Cell
from apps.common.errors import Invalid
from apps.projects.services import BriefInput

FIELDS = {
    "subject": gettext_lazy("Subject"),
    "audience": gettext_lazy("Audience"),
    "angle": gettext_lazy("Angle"),
    "must_say": gettext_lazy("Must say"),
    "must_not_say": gettext_lazy("Must not say"),
    "tone": gettext_lazy("Tone"),
    "num_words": gettext_lazy("Length in words"),
}
LISTS = ("must_say", "must_not_say")

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "subject": ("subject", "title", "topic", "headline", "brief", "about", "product", "name"),
    "audience": ("audience", "readers", "reader", "target", "target audience", "for", "who"),
    "angle": ("angle", "hook", "focus", "message", "why", "description"),
    "must_say": ("must say", "facts", "fact", "key facts", "keywords", "points", "include", "must include"),
    "must_not_say": ("must not say", "avoid", "banned", "exclude", "forbidden", "do not say", "not"),
    "tone": ("tone", "voice", "mood", "tone of voice"),
    "num_words": ("num words", "words", "length", "length in words", "word count", "number of words"),
}
_WHOLE_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_LIST_BREAK = re.compile(r"[;\n]")
_HARMLESS: dict[str, Any] = {field.name: field.default for field in fields(BriefInput)} | {"subject": "-"}
"""What takes the place of a refused value, so that the other fields are judged too."""

ColumnMapping = dict[str, str]
"""Field of the brief -> name of the column; a field without a column is not in it."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    field: str
    column: str
    message: str


def guess_mapping(columns: Sequence[str]) -> ColumnMapping:
    """By the names, whatever their case and marks; no column is taken for two fields."""
    by_name = {_plain(column): column for column in reversed(columns)}
    mapping: ColumnMapping = {}
    for field, names in _SYNONYMS.items():
        column = next((by_name.pop(name) for name in names if name in by_name), None)
        if column is not None:
            mapping[field] = column
    return mapping


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[\W_]+", " ", name.casefold()).split())


def checked_mapping(mapping: Mapping[str, str], columns: Sequence[str]) -> ColumnMapping:
    """Raises Invalid at the field whose column is not in the file."""
    for field, column in mapping.items():
        if field not in FIELDS:
            message = _("There is no field “%(field)s”.") % {"field": field}
            raise Invalid("unknown_field", message, field="mapping")
        if column and column not in columns:
            message = _("The file has no column “%(column)s”.") % {"column": column}
            raise Invalid("unknown_column", message, field=field)
    if not mapping.get("subject"):
        message = _("Say which column holds the subject: no brief is without one.")
        raise Invalid("subject_without_column", message, field="subject")
    return {field: column for field, column in mapping.items() if column}


def brief_of(cells: Mapping[str, Cell], mapping: ColumnMapping, *, preset_id: int) -> BriefInput:
    """The row as a brief's form would send it. Raises Invalid where the length is no number."""
    values: dict[str, Any] = {}
    for field, column in mapping.items():
        cell = cells.get(column, "")
        if field in LISTS:
            values[field] = _items(cell)
        elif field == "num_words":
            values |= _num_words(_line(cell))
        else:
            values[field] = _line(cell)
    return BriefInput(preset_id=preset_id, **{"subject": ""} | values)


def _items(cell: Cell) -> tuple[str, ...]:
    items = cell if isinstance(cell, list) else _LIST_BREAK.split(cell.replace("\r", "\n"))
    return tuple(item.strip() for item in items if item.strip())


def _line(cell: Cell) -> str:
    return "; ".join(cell) if isinstance(cell, list) else cell


def _num_words(text: str) -> dict[str, int]:
    """An empty cell asks for the usual length."""
    if not text.strip():
        return {}
    if not _WHOLE_NUMBER.fullmatch(text.strip()):
        message = _("“%(text)s” is not a whole number.") % {"text": text[:40]}
        raise Invalid("not_a_number", message, field="num_words")
    return {"num_words": int(text)}


def problems_of(cells: Mapping[str, Cell], mapping: ColumnMapping, *, preset_id: int) -> list[Problem]:
    """All that the brief's own rules refuse in this row, not only the first; empty for a good one."""
    problems: list[Problem] = []
    try:
        brief = brief_of(cells, mapping, preset_id=preset_id)
    except Invalid as error:
        problems.append(_problem(error, mapping))
        others = {field: column for field, column in mapping.items() if field != error.field}
        brief = brief_of(cells, others, preset_id=preset_id)
    while (refusal := _refusal(brief)) is not None:
        problems.append(_problem(refusal, mapping))
        brief = replace(brief, **{refusal.field: _HARMLESS[refusal.field]})
    return problems


def _refusal(brief: BriefInput) -> Invalid | None:
    try:
        brief.cleaned()
    except Invalid as error:
        return error
    return None


def _problem(error: Invalid, mapping: ColumnMapping) -> Problem:
    return Problem(field=error.field, column=mapping.get(error.field, ""), message=error.message)
