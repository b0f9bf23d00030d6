"""What a batch has written, as a download: complete, streamed, and harmless in a spreadsheet."""

import csv
import io
import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from apps.batches.models import Batch
from apps.batches.results import ROWS_AT_ONCE, harmless
from tests.support.batches import a_batch, a_dry_run, write_next
from tests.support.cast import Newsroom, Person

pytestmark = pytest.mark.django_db(transaction=True)


async def download(person: Person, batch: Batch, kind: str) -> tuple[Any, str]:
    path = f"/api/v1/batches/{batch.pk}/results"
    response = await AsyncClient().get(path, {"format": kind}, headers=person.headers)
    assert response.status_code == 200
    return response, b"".join([part async for part in response.streaming_content]).decode()


def a_mixed_batch(room: Newsroom) -> Batch:
    """One row ready, one failed, one waiting for a worker, one left out."""
    rows = [
        {"subject": "=1+2", "facts": ["a", "b"], "note": "@me"},
        {"subject": "Bridge\nold"},
        {"subject": "Ferry"},
        {"subject": ""},
    ]
    batch = a_batch(room, rows=rows, seed=7)
    write_next()
    write_next(fails=True)
    return batch


async def test_json_lines_hold_everything(newsroom: Newsroom) -> None:
    batch = await sync_to_async(a_mixed_batch)(newsroom)

    response, text = await download(newsroom.rosa, batch, "jsonl")

    assert response["Content-Disposition"] == f'attachment; filename="batch-{batch.pk}-results.jsonl"'
    ready, failed, waiting, refused = map(json.loads, text.splitlines())
    assert ready["fields"] == {"subject": "=1+2", "facts": ["a", "b"], "note": "@me"}
    told = ("row", "line", "row_state", "candidate", "state", "text", "seed", "model", "release", "error")
    assert [ready[name] for name in told] == [
        1,
        1,
        "ready",
        1,
        "ready",
        "The ferry sails.",
        7,
        "fake",
        "",
        "",
    ]
    assert (failed["row_state"], failed["error"], failed["seed"]) == ("failed", "poison", 8)
    assert (waiting["row_state"], waiting["state"], waiting["text"]) == ("writing", "queued", "")
    assert (refused["row_state"], refused["draft"], refused["error"]) == (
        "refused",
        None,
        "This must not be empty.",
    )


async def test_csv_holds_the_same_and_no_formula(newsroom: Newsroom) -> None:
    batch = await sync_to_async(a_mixed_batch)(newsroom)

    response, text = await download(newsroom.eli, batch, "csv")

    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert text.startswith("\ufeff")
    header, ready, failed, *_ = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    assert header[:6] == ["row", "line", "row_state", "subject", "facts", "note"]
    assert ready[:6] == ["1", "1", "ready", "'=1+2", "a\nb", "'@me"]
    assert failed[3] == "Bridge\nold"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠"])
def test_a_cell_that_a_spreadsheet_would_run(start: str) -> None:
    assert harmless(f"{start}cmd|' /C calc'!A0") == f"'{start}cmd|' /C calc'!A0"


@pytest.mark.parametrize("cell", ["", "a=b", " =", "1-2", "'="])
def test_a_cell_that_is_none_stays_as_it_is(cell: str) -> None:
    assert harmless(cell) == cell


async def test_a_large_batch_comes_in_pages(newsroom: Newsroom) -> None:
    batch = await sync_to_async(a_dry_run)(newsroom, ROWS_AT_ONCE + 1)

    path = f"/api/v1/batches/{batch.pk}/results"
    response = await AsyncClient().get(path, headers=newsroom.eli.headers)
    parts = [part async for part in response.streaming_content]

    assert [part.count(b"\n") for part in parts] == [ROWS_AT_ONCE, 1]
    assert [json.loads(line)["row"] for line in b"".join(parts).splitlines()] == [*range(1, ROWS_AT_ONCE + 2)]
