"""What a batch has written, for download: one line per draft, and one for a row that has none."""

import csv
import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.http import StreamingHttpResponse

from apps.batches.models import Batch, BatchRow
from apps.batches.selectors import with_drafts
from apps.drafts.models import Draft

ROWS_AT_ONCE = 200
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
_ABOUT = ("row", "line", "row_state")
_OUTCOME = ("draft", "candidate", "state", "text", "seed", "model", "release", "error")
_BOM = "\ufeff"  # without it a spreadsheet takes UTF-8 for something else

Record = dict[str, Any]


def csv_response(batch: Batch) -> StreamingHttpResponse:
    return _attachment(_csv_lines(batch), content_type="text/csv; charset=utf-8", name=_name(batch, "csv"))


def jsonl_response(batch: Batch) -> StreamingHttpResponse:
    return _attachment(_json_lines(batch), content_type="application/jsonl", name=_name(batch, "jsonl"))


def _name(batch: Batch, ending: str) -> str:
    """Nothing that a person typed."""
    return f"batch-{batch.pk}-results.{ending}"


def _attachment(lines: AsyncIterator[str], *, content_type: str, name: str) -> StreamingHttpResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingHttpResponse(lines, content_type=content_type, headers=headers)


async def _json_lines(batch: Batch) -> AsyncIterator[str]:
    async for records in _records(batch):
        yield "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


async def _csv_lines(batch: Batch) -> AsyncIterator[str]:
    yield _BOM + _csv([[*_ABOUT, *map(harmless, batch.columns), *_OUTCOME]])
    async for records in _records(batch):
        yield _csv(_csv_cells(batch, record) for record in records)


def _csv_cells(batch: Batch, record: Record) -> list[str]:
    fields = [record["fields"].get(column, "") for column in batch.columns]
    told = [record[name] for name in _ABOUT] + fields + [record[name] for name in _OUTCOME]
    return [harmless(_as_text(value)) for value in told]


def _as_text(value: object) -> str:
    if isinstance(value, list):
        return "\n".join(value)
    return "" if value is None else str(value)


def harmless(cell: str) -> str:
    """A cell that no spreadsheet runs as a formula."""
    return f"'{cell}" if cell.startswith(FORMULA_STARTS) else cell


def _csv(lines: Iterator[list[str]] | list[list[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(lines)
    return buffer.getvalue()


async def _records(batch: Batch) -> AsyncIterator[list[Record]]:
    """A page of rows at a time, so that the largest batch needs no memory of its own."""
    number = 0
    while rows := [row async for row in with_drafts(batch.rows.filter(number__gt=number))[:ROWS_AT_ONCE]]:
        yield [record for row in rows for record in _records_of(row)]
        number = rows[-1].number


def _records_of(row: BatchRow) -> Iterator[Record]:
    about = {"row": row.number, "line": row.line, "row_state": row.state, "fields": row.fields}
    for draft in row.drafts:
        yield about | _outcome(draft)
    if not row.drafts:
        error = row.error or " ".join(problem["message"] for problem in row.problems)
        yield about | dict.fromkeys(_OUTCOME) | {"error": error}


def _outcome(draft: Draft) -> Record:
    return {
        "draft": draft.pk,
        "candidate": draft.candidate + 1,
        "state": draft.state,
        "text": draft.text,
        "seed": draft.seed,
        "model": draft.model_name,
        "release": draft.release.label if draft.release else "",
        "error": draft.job.reason if draft.state == "failed" else "",
    }
