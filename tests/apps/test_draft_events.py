"""GET /drafts/{id}/events: the same stream as server-sent events, for programs."""

import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from apps.drafts import services
from tests.support.cast import Newsroom, Person, assert_refused
from tests.support.factories import a_claimed_job, a_draft, append_words

pytestmark = pytest.mark.django_db(transaction=True)


async def events(person: Person, draft_id: int, *, after: str = "0", **headers: str) -> list[dict[str, Any]]:
    """The events up to the end: type, id and data of each."""
    response = await AsyncClient().get(
        f"/api/v1/drafts/{draft_id}/events", {"after": after}, headers=person.headers | headers
    )
    assert (response.status_code, response["Content-Type"]) == (200, "text/event-stream")
    assert response["Cache-Control"] == "no-store"
    body = b"".join([part async for part in response.streaming_content]).decode()
    return [_parsed(block) for block in body.split("\n\n") if block]


def _parsed(block: str) -> dict[str, Any]:
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    return {"event": fields["event"], "id": fields.get("id"), **json.loads(fields["data"])}


async def test_it_works(newsroom: Newsroom) -> None:
    draft = await sync_to_async(a_draft)(newsroom, text="One line\nand another.")

    chunk, state = await events(newsroom.rosa, draft.pk)

    assert (chunk["event"], chunk["id"], chunk["text"]) == ("chunk", "1", "One line\nand another.")
    assert (state["event"], state["id"], state["state"]) == ("state", None, "ready")


def three_words(room: Newsroom) -> int:
    job = a_claimed_job(room)
    append_words(job, "The", " doors", " open.")
    return services.finish_draft(job=job, finish_reason="end").pk


async def test_the_last_event_id_is_a_cursor_and_wins_over_the_address(newsroom: Newsroom) -> None:
    draft_id = await sync_to_async(three_words)(newsroom)

    by_address = await events(newsroom.eli, draft_id, after="2")
    by_header = await events(newsroom.eli, draft_id, after="0", **{"Last-Event-ID": "2"})

    assert [event.get("text") for event in by_address] == [" open.", None]
    assert by_header == by_address


@pytest.mark.parametrize("cursor", ["-1", "x", "1.0", "%00", "1&after=2"])
def test_a_cursor_that_is_none_is_refused(newsroom: Newsroom, cursor: str) -> None:
    draft = a_draft(newsroom)

    assert_refused(newsroom.eli.get(f"/drafts/{draft.pk}/events", after=cursor), 400, "bad_cursor")


def test_a_stranger_finds_no_stream(newsroom: Newsroom) -> None:
    draft = a_draft(newsroom)

    assert_refused(newsroom.mallory.get(f"/drafts/{draft.pk}/events"), 404, "not_found")
