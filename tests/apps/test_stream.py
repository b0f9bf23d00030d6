"""follow(): from any cursor exactly what is missing, then the end; one tailer reads it for everybody."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import OperationalError, connection, transaction

from apps.common.leases import ClockTimestamp
from apps.drafts import services, stream, tailing
from apps.drafts.models import Chunk, Draft, Job
from apps.drafts.readers import Reader, reader_of
from apps.drafts.tailing import Cursor, Event, NotWelcome, StreamBroken, follow
from tests.support.cast import Newsroom, Person
from tests.support.factories import a_claimed_job, a_queued_draft, append_words

pytestmark = pytest.mark.django_db(transaction=True)

WORDS = ("The", " doors", " of", " the", " library", " öffnen", " um", " 9", " 点", ".")


def reader(person: Person) -> Reader:
    return reader_of(authorization=person.headers["Authorization"], session_key=None)


@asynccontextmanager
async def following(draft_id: int, person: Person, *, after: str = "0") -> AsyncIterator[Callable[[], Any]]:
    """Gives a function that waits for the next event."""
    cursor = Cursor.parse(after)
    assert cursor is not None
    async with aclosing(follow(draft_id, reader=reader(person), after=cursor)) as events:
        yield lambda: asyncio.wait_for(anext(events), 5)


async def followed(draft_id: int, person: Person, *, after: str = "0") -> list[Event]:
    cursor = Cursor.parse(after)
    assert cursor is not None
    async with aclosing(follow(draft_id, reader=reader(person), after=cursor)) as events:
        return [event async for event in events]


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.data["text"] for event in events if event.type == "chunk")


def types_of(events: Sequence[Event]) -> list[str]:
    return [event.type for event in events]


def finished(room: Newsroom, words: Sequence[str] = WORDS) -> Draft:
    job = a_claimed_job(room)
    append_words(job, *words)
    return services.finish_draft(job=job, finish_reason="end")


async def test_from_every_cursor_the_missing_text_and_then_the_end(newsroom: Newsroom) -> None:
    draft = await sync_to_async(finished)(newsroom)

    for seq in range(len(WORDS) + 3):
        *chunks, state = await followed(draft.pk, newsroom.eli, after=str(seq))

        assert text_of(chunks) == "".join(WORDS[seq:])
        assert types_of(chunks) == ["chunk"] * (seq < len(WORDS))
        assert all((chunk.data["first"], chunk.data["seq"]) == (seq + 1, len(WORDS)) for chunk in chunks)
        assert (state.data["state"], state.data["content_sha256"]) == ("ready", draft.content_sha256)


@pytest.mark.parametrize("max_chars", [1, 3, 8, 40])
async def test_a_long_text_arrives_in_frames_that_join_without_a_gap(
    newsroom: Newsroom, max_chars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailing, "MAX_FRAME_CHARS", max_chars)
    draft = await sync_to_async(finished)(newsroom)

    *chunks, _state = await followed(draft.pk, newsroom.eli)

    assert text_of(chunks) == draft.text
    assert [chunk.data["first"] for chunk in chunks] == [1, *(c.data["seq"] + 1 for c in chunks[:-1])]
    longest_word = max(map(len, WORDS))
    assert all(len(chunk.data["text"]) <= max(max_chars, longest_word) for chunk in chunks)


async def test_readers_that_come_and_go_while_it_is_written_miss_nothing(newsroom: Newsroom) -> None:
    """Eight readers leave after a random number of events and come back with their cursor."""
    job = await sync_to_async(a_claimed_job)(newsroom)
    draw = random.Random(5)

    readers = [
        asyncio.create_task(_read_with_breaks(newsroom, job.draft_id, draw.randrange(1, 6))) for _ in range(8)
    ]
    for word in WORDS:
        await sync_to_async(append_words)(job, word)
        await asyncio.sleep(0.02)
    await sync_to_async(services.finish_draft)(job=job, finish_reason="end")

    assert await asyncio.gather(*readers) == ["".join(WORDS)] * len(readers)


async def _read_with_breaks(room: Newsroom, draft_id: int, patience: int) -> str:
    text, cursor = "", "0"
    while True:
        async with following(draft_id, room.rosa, after=cursor) as next_event:
            for _ in range(patience):
                event = await next_event()
                text += text_of([event])
                cursor = str(event.cursor or cursor)
                if event.ends_the_stream:
                    return text


async def test_a_change_of_state_is_told_and_of_the_place_in_the_queue(newsroom: Newsroom) -> None:
    await sync_to_async(a_queued_draft)(newsroom)
    draft = await sync_to_async(a_queued_draft)(newsroom)

    async with following(draft.pk, newsroom.eli) as next_event:
        first = (await next_event()).data
        assert (first["state"], first["position"]) == ("queued", 2)

        await sync_to_async(Job.objects.claim_next)(worker="worker-1")
        second = (await next_event()).data
        assert (second["state"], second["position"]) == ("queued", 1)


async def test_chunks_alone_are_no_change_of_state(newsroom: Newsroom) -> None:
    job = await sync_to_async(a_claimed_job)(newsroom)
    async with following(job.draft_id, newsroom.eli) as next_event:
        assert (await next_event()).type == "state"
        for seq, word in enumerate(WORDS, start=1):
            await sync_to_async(append_words)(job, word)
            chunk = (await next_event()).data
            assert (chunk["type"], chunk["seq"], chunk["num_tokens"]) == ("chunk", seq, seq)


async def test_a_cursor_beyond_the_end_swallows_nothing(newsroom: Newsroom) -> None:
    job = await sync_to_async(a_claimed_job)(newsroom)
    await sync_to_async(append_words)(job, "The")

    async with following(job.draft_id, newsroom.eli, after="50") as next_event:
        assert (await next_event()).type == "state"
        await sync_to_async(append_words)(job, " doors")
        chunk = (await next_event()).data
    assert (chunk["type"], chunk["seq"], chunk["text"]) == ("chunk", 2, " doors")


@transaction.atomic
def start_over(job: Job, *words: str) -> None:
    Draft.objects.filter(pk=job.draft_id).update(attempt=2, last_seq=0)
    append_words(job, *words)


async def test_a_text_that_starts_over_is_told_before_its_chunks(newsroom: Newsroom) -> None:
    job = await sync_to_async(a_claimed_job)(newsroom)
    await sync_to_async(append_words)(job, "A", " false", " start")

    async with following(job.draft_id, newsroom.eli) as next_event:
        assert [(await next_event()).type for _ in range(2)] == ["chunk", "state"]
        await sync_to_async(start_over)(job, "The")

        assert (await next_event()).data == {"type": "reset", "attempt": 2}
        chunk = (await next_event()).data
    assert (chunk["attempt"], chunk["seq"], chunk["text"]) == (2, 1, "The")


@pytest.mark.parametrize("after", ["1.2", "7.2", "9.0"])
async def test_a_cursor_of_another_attempt_starts_over(newsroom: Newsroom, after: str) -> None:
    """It counts chunks of a text that is gone, so none of this text may be left out for it."""
    job = await sync_to_async(a_claimed_job)(newsroom)
    await sync_to_async(append_words)(job, "A", " false", " start")
    await sync_to_async(start_over)(job, *WORDS)
    await sync_to_async(services.finish_draft)(job=job, finish_reason="end")

    reset, *chunks, _state = await followed(job.draft_id, newsroom.eli, after=after)

    assert (reset.data, text_of(chunks)) == ({"type": "reset", "attempt": 2}, "".join(WORDS))


async def test_no_reader_sees_what_is_not_committed(newsroom: Newsroom) -> None:
    """The chunk row and the count of the draft are one commit, so a reader is never ahead."""
    draft = await sync_to_async(finished)(newsroom)
    await Chunk.objects.acreate(draft=draft, attempt=1, seq=len(WORDS) + 1, text=" not counted yet")

    assert text_of(await followed(draft.pk, newsroom.eli)) == draft.text


async def test_a_gap_in_the_stored_chunks_is_never_shown_as_a_text(newsroom: Newsroom) -> None:
    draft = await sync_to_async(finished)(newsroom)
    await Chunk.objects.filter(draft=draft, seq=4).adelete()

    with pytest.raises(StreamBroken):
        await followed(draft.pk, newsroom.eli)


# --- one tailer for everybody ------------------------------------------------------------------


class Queries:
    """The statements of the thread in which async code reaches the database."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.seen.append(sql)
        return execute(sql, params, many, context)


@asynccontextmanager
async def counted() -> AsyncIterator[Queries]:
    queries = Queries()
    await sync_to_async(lambda: connection.execute_wrappers.append(queries))()
    try:
        yield queries
    finally:
        await sync_to_async(lambda: connection.execute_wrappers.remove(queries))()


async def test_a_change_is_read_once_for_all_who_follow(
    newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailing, "POLL_S", 60)
    job = await sync_to_async(a_claimed_job)(newsroom)
    people = [newsroom.ada, newsroom.eli, newsroom.rosa] * 20
    events = [follow(job.draft_id, reader=reader(person), after=Cursor()) for person in people]
    assert {(await anext(each)).type for each in events} == {"state"}
    await asyncio.sleep(0.2)  # subscribed

    async with counted() as queries:
        layer, group = get_channel_layer(), stream.group_name(job.draft_id)
        await sync_to_async(append_words)(job, "The")
        written = len(queries.seen)
        chunks = await asyncio.gather(*(anext(each) for each in events))
        await layer.group_send(group, {"type": "draft.changed"})  # a hint of nothing is told to nobody
        await asyncio.sleep(0.2)

    assert {chunk.data["text"] for chunk in chunks} == {"The"}
    assert len({id(chunk) for chunk in chunks}) == 1, "a frame is made once"
    assert len(queries.seen) - written <= 2, queries.seen[written:]
    assert len(tailing._tailers) == 1
    for each in events:
        await each.aclose()
    assert not tailing._tailers


async def test_everyone_is_served_from_their_own_cursor(newsroom: Newsroom) -> None:
    job = await sync_to_async(a_claimed_job)(newsroom)
    await sync_to_async(append_words)(job, *WORDS[:4])

    async with (
        following(job.draft_id, newsroom.eli) as eli,
        following(job.draft_id, newsroom.rosa, after="1.3") as rosa,
    ):
        assert (await eli()).data["text"] == "".join(WORDS[:4])
        assert (await rosa()).data["text"] == WORDS[3]
        await sync_to_async(append_words)(job, *WORDS[4:6])
        await asyncio.sleep(0.1)
        await sync_to_async(append_words)(job, *WORDS[6:])
        await sync_to_async(services.finish_draft)(job=job, finish_reason="end")
        assert await _rest(eli) == await _rest(rosa) == "".join(WORDS[4:])


async def _rest(next_event: Callable[[], Any]) -> str:
    events = [await next_event()]
    while not events[-1].ends_the_stream:
        events.append(await next_event())
    return text_of(events)


async def test_whoever_joins_late_is_told_all_of_it_and_the_end(newsroom: Newsroom) -> None:
    job = await sync_to_async(a_claimed_job)(newsroom)
    async with following(job.draft_id, newsroom.eli) as early:
        await early()
        await sync_to_async(append_words)(job, *WORDS)
        await sync_to_async(services.finish_draft)(job=job, finish_reason="end")
        assert await _rest(early) == "".join(WORDS)

        events = await followed(job.draft_id, newsroom.rosa)

    assert (text_of(events), events[-1].data["state"]) == ("".join(WORDS), "ready")


async def test_the_tailer_ends_with_its_last_follower(newsroom: Newsroom) -> None:
    job = await sync_to_async(a_claimed_job)(newsroom)
    before = asyncio.all_tasks()

    async with following(job.draft_id, newsroom.eli) as eli:
        await eli()
        async with following(job.draft_id, newsroom.rosa) as rosa:
            await rosa()
        assert tailing.num_followers() == 1
        await sync_to_async(append_words)(job, "The")
        assert (await eli()).type == "chunk"

    await asyncio.sleep(0.1)
    assert not tailing._tailers
    assert [task for task in asyncio.all_tasks() - before if "Tailer" in repr(task)] == []


async def test_a_lost_hint_costs_one_poll(newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "POLL_S", 0.05)
    monkeypatch.setattr(stream._Bell, "ring", lambda self, draft_id: None)
    job = await sync_to_async(a_claimed_job)(newsroom)

    async with following(job.draft_id, newsroom.eli) as next_event:
        assert (await next_event()).type == "state"
        await sync_to_async(append_words)(job, "The")
        assert (await next_event()).data["text"] == "The"


async def test_silence_is_filled_with_pings(newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "POLL_S", 0.01)
    monkeypatch.setattr(tailing, "PING_S", 0.02)
    job = await sync_to_async(a_claimed_job)(newsroom)

    async with following(job.draft_id, newsroom.eli) as next_event:
        assert [(await next_event()).type for _ in range(3)] == ["state", "ping", "ping"]


async def test_a_database_that_is_away_for_a_moment_costs_nobody_the_stream(
    newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailing, "POLL_S", 0.02)
    job = await sync_to_async(a_claimed_job)(newsroom)

    def away(*_: Any) -> None:
        raise OperationalError("the server is starting up")

    async with following(job.draft_id, newsroom.eli) as next_event:
        assert (await next_event()).type == "state"
        with monkeypatch.context() as outage:
            outage.setattr(tailing, "_read", away)
            await sync_to_async(append_words)(job, "The")
            await asyncio.sleep(0.1)
        assert (await next_event()).data["text"] == "The"
        monkeypatch.setattr(tailing, "_read", away)
        monkeypatch.setattr(tailing, "OUTAGE_S", 0.05)
        with pytest.raises(StreamBroken):
            await next_event()


# --- who may go on reading ---------------------------------------------------------------------


@pytest.fixture
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "POLL_S", 0.02)
    monkeypatch.setattr(tailing, "RECHECK_S", 0.05)


def removed(room: Newsroom) -> None:
    room.project.memberships.filter(user=room.rosa.user).delete()


def deactivated(room: Newsroom) -> None:
    type(room.rosa.user).objects.filter(pk=room.rosa.user.pk).update(is_active=False)


def revoked(room: Newsroom) -> None:
    room.rosa.user.api_tokens.update(revoked_at=ClockTimestamp())


def deleted(room: Newsroom) -> None:
    Draft.objects.all().delete()


@pytest.mark.parametrize("what_happens", [removed, deactivated, revoked, deleted])
@pytest.mark.usefixtures("quick_checks")
async def test_whoever_may_no_longer_read_is_told_nothing_more(
    newsroom: Newsroom, what_happens: Callable[[Newsroom], None]
) -> None:
    job = await sync_to_async(a_claimed_job)(newsroom)
    async with following(job.draft_id, newsroom.rosa) as rosa:
        assert (await rosa()).type == "state"
        await sync_to_async(what_happens)(newsroom)
        with pytest.raises(NotWelcome):
            await rosa()


@pytest.mark.usefixtures("quick_checks")
async def test_the_others_go_on_and_a_right_given_back_is_a_right(newsroom: Newsroom) -> None:
    job = await sync_to_async(a_claimed_job)(newsroom)
    async with (
        following(job.draft_id, newsroom.eli) as eli,
        following(job.draft_id, newsroom.rosa) as rosa,
    ):
        await eli(), await rosa()
        membership = await newsroom.project.memberships.aget(user=newsroom.rosa.user)
        await sync_to_async(removed)(newsroom)
        with pytest.raises(NotWelcome):
            await rosa()
        membership.pk = None
        await membership.asave()
        async with following(job.draft_id, newsroom.rosa) as rosa_again:
            await sync_to_async(append_words)(job, "The")
            assert (await eli()).data["text"] == "The"
            assert text_of([await rosa_again()]) in ("", "The")


async def test_a_check_of_many_readers_is_a_handful_of_queries(
    newsroom: Newsroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailing, "RECHECK_S", 0.0)
    monkeypatch.setattr(tailing, "POLL_S", 60)
    job = await sync_to_async(a_claimed_job)(newsroom)
    people = [newsroom.ada, newsroom.eli, newsroom.rosa] * 20
    events = [follow(job.draft_id, reader=reader(person), after=Cursor()) for person in people]
    for each in events:
        await anext(each)
    await asyncio.sleep(0.2)

    async with counted() as queries:
        await get_channel_layer().group_send(stream.group_name(job.draft_id), {"type": "draft.changed"})
        await asyncio.sleep(0.3)

    assert 2 <= len(queries.seen) <= 4, queries.seen
    for each in events:
        await each.aclose()
