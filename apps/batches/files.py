"""A file of briefs read into a table: CSV or JSON lines, refused with the number of the line."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.utils.translation import gettext as _

from apps.common.errors import Invalid

MAX_BYTES = 2 * 1024 * 1024
MAX_ROWS = 10_000
MAX_COLUMNS = 100
MAX_COLUMN_CHARS = 120
MAX_PROBLEMS_TOLD = 5

_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_ZIP = b"PK\x03\x04"  # what an Excel workbook is
_DELIMITERS = (",", ";", "\t")

Cell = str | list[str]
Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class Row:
    """`line` is where the row begins in the file, counted from 1."""

    line: int
    cells: dict[str, Cell]


@dataclass(frozen=True, kw_only=True)
class Table:
    columns: Sequence[str]
    rows: Sequence[Row]


class _LineError(Exception):
    """One line that cannot be read."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.told = _("Line %(line)s: %(message)s") % {"line": line, "message": message}


def read_table(data: bytes) -> Table:
    """Raises Invalid for `file`: the first lines at fault, each with its number and what to do."""
    if len(data) > MAX_BYTES:
        raise _refused(_("The file is larger than 2 MiB. Split it into several."))
    if data.startswith(_ZIP):
        raise _refused(_("This is a workbook or an archive. Save the sheet as “CSV UTF-8” and send that."))
    text = _decoded(data)
    if not text.strip(" \r\n" + "".join(_DELIMITERS)):
        raise _refused(_("The file is empty."))
    return _read_json(text) if text.lstrip().startswith(("{", "[")) else _read_csv(text)


def _refused(message: str) -> Invalid:
    return Invalid("bad_file", message, field="file")


def _decoded(data: bytes) -> str:
    encoding = "utf-16" if data.startswith(_UTF16_BOMS) else "utf-8"
    try:
        return data.removeprefix(_UTF8_BOM).decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        message = _("this is not %(encoding)s. Save the file as “CSV UTF-8” and send it again.")
        raise _refused(_LineError(line, message % {"encoding": encoding.upper()}).told) from error


# --- CSV ---------------------------------------------------------------------------------------


def _read_csv(text: str) -> Table:
    records = _csv_records(text, _delimiter(text))
    try:
        line, header = next(records)
        columns = _checked_columns(line, [name.strip() for name in header])
    except _LineError as error:
        raise _refused(error.told) from error
    rows = _collected(records, lambda line, cells: _csv_row(line, columns, cells))
    return Table(columns=columns, rows=rows)


def _delimiter(text: str) -> str:
    """The one that cuts the header into most columns."""
    return max(_DELIMITERS, key=lambda delimiter: _num_columns(text, delimiter))


def _num_columns(text: str, delimiter: str) -> int:
    try:
        _line, header = next(_csv_records(text, delimiter), (0, []))
        return len(header)
    except _LineError:
        return 0


def _csv_records(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Records with the line they begin at; empty ones are passed over."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begins = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _LineError(begins, _csv_complaint(error)) from error
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield begins, cells
        begins = reader.line_num + 1


def _csv_complaint(error: csv.Error) -> str:
    if "field larger" in str(error):
        return _("a cell is longer than 131072 characters.")
    return _("the quotes do not match. A quote inside a quoted cell is written twice.")


def _csv_row(line: int, columns: Sequence[str], cells: list[str]) -> Row:
    while len(cells) > len(columns) and not cells[-1].strip():
        cells.pop()
    if len(cells) > len(columns):
        message = _("%(cells)s cells, but %(columns)s columns. Put a cell that holds separators in quotes.")
        raise _LineError(line, message % {"cells": len(cells), "columns": len(columns)})
    filled = cells + [""] * (len(columns) - len(cells))
    return Row(
        line=line, cells={name: _storable(line, cell) for name, cell in zip(columns, filled, strict=True)}
    )


def _checked_columns(line: int, names: list[str]) -> list[str]:
    while names and not names[-1]:
        names.pop()
    if len(names) > MAX_COLUMNS:
        message = _("%(num)s columns; at most %(max)s are read.")
        raise _LineError(line, message % {"num": len(names), "max": MAX_COLUMNS})
    for name in names:
        _require_column_name(line, name)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = _("there are two columns “%(name)s”. Give each its own name.")
        raise _LineError(line, message % {"name": twice[0]})
    return names


def _require_column_name(line: int, name: str) -> None:
    if not name:
        raise _LineError(line, _("a column has no name. The first line names the columns."))
    if len(name) > MAX_COLUMN_CHARS:
        message = _("a column's name is longer than %(max)s characters. Is the line with the names missing?")
        raise _LineError(line, message % {"max": MAX_COLUMN_CHARS})
    _storable(line, name)


# --- JSON lines --------------------------------------------------------------------------------


def _read_json(text: str) -> Table:
    if text.lstrip().startswith("["):
        raise _refused(_("Write one JSON object per line, without brackets and commas around them."))
    columns: dict[str, None] = {}
    # Not `splitlines`: U+2028 and its kin may stand inside a JSON string.
    lines = ((line, each) for line, each in enumerate(text.split("\n"), start=1) if each.strip())
    rows = _collected(lines, lambda line, each: _json_row(line, _parsed(line, each), columns))
    return Table(columns=list(columns), rows=rows)


def table_of(records: Sequence[Any]) -> Table:
    """The same table from JSON objects that came without a file; a row's number stands for its line."""
    columns: dict[str, None] = {}
    rows = _collected(enumerate(records, start=1), lambda line, each: _json_row(line, each, columns))
    return Table(columns=list(columns), rows=rows)


def _parsed(line: int, text: str) -> Any:
    try:
        return json.loads(
            text,
            object_pairs_hook=lambda pairs: _without_duplicates(line, pairs),
            parse_constant=lambda name: _refuse_constant(line, name),
            parse_int=str,  # as it was written: 1e999 and a thousand digits are nobody's problem
            parse_float=str,
        )
    except json.JSONDecodeError as error:
        message = _("no JSON at character %(column)s. Each line is one object.")
        raise _LineError(line, message % {"column": error.pos + 1}) from error
    except RecursionError as error:
        message = _("nested too deeply. A value is a text, a number or a list of them.")
        raise _LineError(line, message) from error


def _without_duplicates(line: int, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, value in pairs:
        if name in record:
            raise _LineError(line, _("“%(name)s” is there twice.") % {"name": name})
        record[name] = value
    return record


def _refuse_constant(line: int, name: str) -> None:
    raise _LineError(line, _("%(name)s is no JSON number.") % {"name": name})


def _json_row(line: int, record: Any, columns: dict[str, None]) -> Row:
    if not isinstance(record, dict):
        raise _LineError(line, _('a row is a JSON object, such as {"subject": "..."}.'))
    for name in record:
        if name not in columns:
            _require_column_name(line, name)
            columns[name] = None
    if len(columns) > MAX_COLUMNS:
        raise _LineError(line, _("more than %(max)s different names up to here.") % {"max": MAX_COLUMNS})
    return Row(line=line, cells={name: _cell(line, name, value) for name, value in record.items()})


def _cell(line: int, name: str, value: Any) -> Cell:
    if isinstance(value, list):
        return [_scalar(line, name, item) for item in value]
    return _scalar(line, name, value)


def _scalar(line: int, name: str, value: Any) -> str:
    if isinstance(value, dict | list):
        message = _("“%(name)s” holds a structure. A value is a text, a number or a list of them.")
        raise _LineError(line, message % {"name": name})
    if value is None:
        return ""
    return _storable(line, value if isinstance(value, str) else json.dumps(value))


# --- both --------------------------------------------------------------------------------------


def _storable(line: int, text: str) -> str:
    """PostgreSQL holds neither a NUL nor half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _LineError(line, _("half of a character. Is the escape \\ud… written in full?")) from error
    if "\0" in text:
        raise _LineError(line, _("there are bytes that no text holds. Is this a text file?"))
    return text


def _collected(records: Iterable[tuple[int, Record]], read: Callable[[int, Record], Row]) -> list[Row]:
    """All rows; or the first few lines that cannot be read, told at once."""
    rows: list[Row] = []
    told: list[str] = []
    try:
        for line, record in records:
            try:
                rows.append(read(line, record))
            except _LineError as error:
                told.append(error.told)
            if len(rows) > MAX_ROWS:
                message = _("The file has more than %(max)s rows. Split it into several.")
                raise _refused(message % {"max": MAX_ROWS})
            if len(told) == MAX_PROBLEMS_TOLD:
                break
    except _LineError as error:  # the records themselves end here
        told.append(error.told)
    if told:
        raise _refused(" ".join(told))
    if not rows:
        raise _refused(_("There is no row. The first line names the columns, the rows follow."))
    return rows
