"""GET /drafts/{id}/events: the same stream as server-sent events, for programs."""

import asyncio
import json
import re
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from apps.drafts import services, tailing
from tests.support.cast import Newsroom, assert_refused
from tests.support.factories import a_claimed_job, a_draft, append_words

pytestmark = pytest.mark.django_db(transaction=True)


async def events(
    headers: dict[str, str], draft_id: int, *, after: str = "0", client: AsyncClient | None = None
) -> list[dict[str, Any]]:
    """The events up to the end: type, id and data of each."""
    response = await (client or AsyncClient()).get(
        f"/api/v1/drafts/{draft_id}/events", {"after": after}, headers=headers
    )
    assert (response.status_code, response["Content-Type"]) == (200, "text/event-stream")
    assert response["Cache-Control"] == "no-store"
    body = b"".join([part async for part in response.streaming_content]).decode()
    retry, *blocks = filter(None, body.split("\n\n"))
    assert re.fullmatch(r"retry: \d{3,4}", retry)
    return [_parsed(block) for block in blocks]


def _parsed(block: str) -> dict[str, Any]:
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    return {"event": fields["event"], "id": fields.get("id"), **json.loads(fields["data"])}


async def test_it_works(newsroom: Newsroom) -> None:
    draft = await sync_to_async(a_draft)(newsroom, text="One line\nand another.")

    chunk, state = await events(newsroom.rosa.headers, draft.pk)

    assert (chunk["event"], chunk["id"], chunk["text"]) == ("chunk", "1.1", "One line\nand another.")
    assert (state["event"], state["id"], state["state"]) == ("state", None, "ready")


def three_words(room: Newsroom) -> int:
    job = a_claimed_job(room)
    append_words(job, "The", " doors", " open.")
    return services.finish_draft(job=job, finish_reason="end").pk


async def test_the_last_event_id_is_a_cursor_and_wins_over_the_address(newsroom: Newsroom) -> None:
    draft_id = await sync_to_async(three_words)(newsroom)
    eli = newsroom.eli.headers

    by_address = await events(eli, draft_id, after="2")
    by_header = await events(eli | {"Last-Event-ID": "1.2"}, draft_id, after="0")

    assert [event.get("text") for event in by_address] == [" open.", None]
    assert by_header == by_address


@pytest.mark.parametrize("cursor", ["-1", "x", "1.", "1.2.3", "%00", "1&after=2"])
def test_a_cursor_that_is_none_is_refused(newsroom: Newsroom, cursor: str) -> None:
    draft = a_draft(newsroom)

    assert_refused(newsroom.eli.get(f"/drafts/{draft.pk}/events", after=cursor), 400, "bad_cursor")


def test_a_stranger_finds_no_stream(newsroom: Newsroom) -> None:
    draft = a_draft(newsroom)

    assert_refused(newsroom.mallory.get(f"/drafts/{draft.pk}/events"), 404, "not_found")


async def test_an_id_of_another_attempt_gets_the_whole_text_again(newsroom: Newsroom) -> None:
    draft_id = await sync_to_async(three_words)(newsroom)

    reset, chunk, _state = await events(newsroom.eli.headers | {"Last-Event-ID": "7.2"}, draft_id)

    assert (reset["event"], reset["attempt"], chunk["text"]) == ("reset", 1, "The doors open.")


async def test_a_session_reads_too_until_it_is_signed_out(
    newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailing, "POLL_S", 0.02)
    monkeypatch.setattr(tailing, "RECHECK_S", 0.05)
    job = await sync_to_async(a_claimed_job)(newsroom)
    await sync_to_async(append_words)(job, "The")
    client = AsyncClient()
    await client.aforce_login(newsroom.rosa.user)

    reading = asyncio.create_task(events({}, job.draft_id, client=client))
    await asyncio.sleep(0.5)
    assert not reading.done()
    await client.alogout()

    seen = await asyncio.wait_for(reading, 5)
    assert [event["event"] for event in seen] == ["chunk", "state"]
    assert seen[-1]["state"] == "writing"
