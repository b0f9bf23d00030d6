"""follow(): from any cursor exactly what is missing, then the end. Losing hints costs a poll, no text."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from apps.drafts import services, stream
from apps.drafts.models import Chunk, Draft, Job
from tests.support.cast import Newsroom
from tests.support.factories import a_claimed_job, a_queued_draft, append_words

pytestmark = pytest.mark.django_db(transaction=True)

WORDS = ("The", " doors", " of", " the", " library", " öffnen", " um", " 9", " 点", ".")


async def followed(draft_id: int, *, after: int = 0) -> list[stream.Message]:
    messages = stream.follow(draft_id, after=after, wake=asyncio.Event())
    return [message async for message in messages]


def chunks_of(messages: Sequence[stream.Message]) -> list[tuple[int, str]]:
    return [(message["seq"], message["text"]) for message in messages if message["type"] == "chunk"]


def finished(room: Newsroom, words: Sequence[str] = WORDS) -> Draft:
    job = a_claimed_job(room)
    append_words(job, *words)
    return services.finish_draft(job=job, finish_reason="end")


async def test_from_every_cursor_the_missing_chunks_and_then_the_end(newsroom: Newsroom) -> None:
    draft = await sync_to_async(finished)(newsroom)
    whole = list(enumerate(WORDS, start=1))

    for cursor in range(len(WORDS) + 3):
        messages = await followed(draft.pk, after=cursor)

        assert chunks_of(messages) == whole[cursor:]
        assert [message["type"] for message in messages[len(whole[cursor:]) :]] == ["state"]
        assert messages[-1]["state"] == "ready"
        assert messages[-1]["content_sha256"] == draft.content_sha256


@pytest.mark.parametrize("page", [1, 3, 5, 10])
async def test_a_text_of_many_pages_arrives_whole_and_in_order(
    newsroom: Newsroom, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PAGE", page)
    draft = await sync_to_async(finished)(newsroom)

    messages = await followed(draft.pk)

    assert "".join(text for _seq, text in chunks_of(messages)) == draft.text
    assert [message["type"] for message in messages].index("state") == len(WORDS)


async def test_readers_that_come_and_go_while_it_is_written_miss_nothing(newsroom: Newsroom) -> None:
    """Eight readers leave after a random number of messages and come back with their cursor."""
    job = await sync_to_async(a_claimed_job)(newsroom)
    draw = random.Random(5)

    readers = [asyncio.create_task(_read_with_breaks(job.draft_id, draw.randrange(1, 6))) for _ in range(8)]
    for word in WORDS:
        await sync_to_async(append_words)(job, word)
        await asyncio.sleep(0.02)
    await sync_to_async(services.finish_draft)(job=job, finish_reason="end")

    whole = list(enumerate(WORDS, start=1))
    assert await asyncio.gather(*readers) == [whole] * len(readers)


async def _read_with_breaks(draft_id: int, patience: int) -> list[tuple[int, str]]:
    seen: list[tuple[int, str]] = []
    while True:
        async with stream.hints(draft_id) as wake:
            messages = stream.follow(draft_id, after=len(seen), wake=wake)
            for _ in range(patience):
                message = await anext(messages)
                seen += chunks_of([message])
                if message.get("state") == "ready":
                    return seen
            await messages.aclose()  # type: ignore[attr-defined]  # an async generator


async def test_a_change_of_state_is_shown_and_of_the_place_in_the_queue(newsroom: Newsroom) -> None:
    await sync_to_async(a_queued_draft)(newsroom)
    draft = await sync_to_async(a_queued_draft)(newsroom)
    wake = asyncio.Event()
    messages = stream.follow(draft.pk, after=0, wake=wake)

    first = await anext(messages)
    assert (first["state"], first["position"]) == ("queued", 2)

    await sync_to_async(Job.objects.claim_next)(worker="worker-1")
    wake.set()
    second = await anext(messages)
    assert (second["state"], second["position"]) == ("queued", 1)


async def test_a_cursor_beyond_the_end_swallows_nothing(newsroom: Newsroom) -> None:
    job = await sync_to_async(a_claimed_job)(newsroom)
    await sync_to_async(append_words)(job, "The")
    wake = asyncio.Event()
    messages = stream.follow(job.draft_id, after=50, wake=wake)
    assert (await anext(messages))["type"] == "state"

    await sync_to_async(append_words)(job, " doors")
    wake.set()

    chunk = await anext(messages)
    assert (chunk["type"], chunk["seq"], chunk["text"]) == ("chunk", 2, " doors")


async def test_a_text_that_starts_over_is_told_before_its_chunks(newsroom: Newsroom) -> None:
    job = await sync_to_async(a_claimed_job)(newsroom)
    await sync_to_async(append_words)(job, "A", " false", " start")
    wake = asyncio.Event()
    messages = stream.follow(job.draft_id, after=1, wake=wake)
    assert [(await anext(messages))["type"] for _ in range(3)] == ["chunk", "chunk", "state"]

    await Draft.objects.filter(pk=job.draft_id).aupdate(attempt=2, last_seq=0)
    await sync_to_async(append_words)(job, "The")
    wake.set()

    assert await anext(messages) == {"type": "reset", "attempt": 2}
    chunk = await anext(messages)
    assert (chunk["attempt"], chunk["seq"], chunk["text"]) == (2, 1, "The")


async def test_a_lost_hint_costs_one_poll(newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "POLL_S", 0.05)
    job = await sync_to_async(a_claimed_job)(newsroom)
    messages = stream.follow(job.draft_id, after=0, wake=asyncio.Event())
    assert (await anext(messages))["type"] == "state"

    await sync_to_async(append_words)(job, "The")

    message: dict[str, Any] = await asyncio.wait_for(anext(messages), 2)
    assert (message["type"], message["text"]) == ("chunk", "The")


async def test_silence_is_filled_with_pings(newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "POLL_S", 0.01)
    monkeypatch.setattr(stream, "PING_S", 0.02)
    draft = await sync_to_async(a_queued_draft)(newsroom)
    messages = stream.follow(draft.pk, after=0, wake=asyncio.Event())

    assert [(await anext(messages))["type"] for _ in range(3)] == ["state", "ping", "ping"]


async def test_no_reader_sees_what_is_not_committed(newsroom: Newsroom) -> None:
    """The chunk row and the count of the draft are one commit, so a reader is never ahead."""
    draft = await sync_to_async(finished)(newsroom)
    await Chunk.objects.acreate(draft=draft, attempt=1, seq=len(WORDS) + 1, text=" not counted yet")

    assert chunks_of(await followed(draft.pk))[-1] == (len(WORDS), WORDS[-1])
