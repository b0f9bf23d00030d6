"""Following a draft: one tailer reads it once for this process, each follower pulls from its own place."""

import asyncio
import json
import logging
import re
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property

from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.contrib.postgres.expressions import ArraySubquery
from django.db import Error as DatabaseProblem
from django.db.models import OuterRef
from redis.exceptions import RedisError

from apps.drafts.models import LIVE_STATES, Chunk, Draft
from apps.drafts.readers import Reader, welcome
from apps.drafts.stream import Message, group_name, snapshot

logger = logging.getLogger(__name__)

POLL_S = 1.0
"""A tailer looks this often even without a hint, so a lost hint costs a second and nothing else."""
PING_S = 10.0
RECHECK_S = 5.0
OUTAGE_S = 15.0
"""For so long followers wait for a database that is away; then they are sent to come back."""
RESUBSCRIBE_S = 10.0
REST_PER_FOLLOWER_S = 0.0004
"""The more follow in this process, the longer a tailer rests between two looks: a thousand
followers get two or three frames a second each, which leaves most of a core to other work."""
MAX_FRAME_CHARS = 16_384
MAX_CURSOR = 2**31 - 1
_NOT_TOLD_ALONE = ("last_seq", "num_tokens")


class NotWelcome(Exception):
    """The reader may not read this draft any more."""


class StreamBroken(Exception):
    """The draft cannot be read; whoever followed it may come back with the cursor."""


class ChunksMissing(StreamBroken):
    """The stored chunks of a draft have a gap: nothing true can be shown after it."""


@dataclass(frozen=True)
class Cursor:
    """The last chunk that was seen; attempt 0 where only its number is known."""

    attempt: int = 0
    seq: int = 0

    @classmethod
    def parse(cls, value: str) -> "Cursor | None":
        """`SEQ` or `ATTEMPT.SEQ`, clamped; None for something that is no cursor."""
        if not re.fullmatch(r"(?a:\d+(\.\d+)?)", value):
            return None
        attempt, _dot, seq = value.rpartition(".")
        return cls(_clamped(attempt or "0"), _clamped(seq))

    def __str__(self) -> str:
        return f"{self.attempt}.{self.seq}"


def _clamped(digits: str) -> int:
    return min(int(digits[:20]), MAX_CURSOR)


@dataclass(frozen=True)
class Event:
    """One thing to tell; made, and written as JSON, once for all who are told."""

    data: Message

    @property
    def type(self) -> str:
        return str(self.data["type"])

    @property
    def cursor(self) -> Cursor | None:
        """Where to go on after a chunk."""
        return Cursor(self.data["attempt"], self.data["seq"]) if self.type == "chunk" else None

    @property
    def ends_the_stream(self) -> bool:
        return self.type == "state" and self.data["state"] not in LIVE_STATES

    @cached_property
    def json(self) -> str:
        return json.dumps(self.data, ensure_ascii=False, separators=(",", ":"))


PING = Event({"type": "ping"})


@dataclass
class _Place:
    """How far one follower has come."""

    attempt: int
    seq: int
    num_states: int = 0
    num_pings: int = 0


async def follow(draft_id: int, *, reader: Reader, after: Cursor) -> AsyncGenerator[Event, None]:
    """Events from the cursor to the end of the draft: chunks in order, states as they change, pings.

    The last event is a terminal state. Raises NotWelcome once the reader may no longer read, and
    StreamBroken.
    Close it (`aclosing`): the tailer ends with its last follower.
    """
    place = _Place(after.attempt, after.seq)
    with _tailing(draft_id, reader) as tailer:
        while True:
            changed = tailer.changed  # taken before looking, so that no change falls between
            event = tailer.event_for(place, reader)
            if event is None:
                await changed.wait()
                continue
            yield event
            if event.ends_the_stream:
                return


_tailers: dict[tuple[asyncio.AbstractEventLoop, int], "Tailer"] = {}


@contextmanager
def _tailing(draft_id: int, reader: Reader) -> Iterator["Tailer"]:
    key = (asyncio.get_running_loop(), draft_id)
    tailer = _tailers.get(key)
    if tailer is None or tailer.error:
        tailer = _tailers[key] = Tailer(draft_id)
        tailer.start()
    tailer.readers[reader] += 1
    tailer.refused.discard(reader)  # they have just shown at the door that they may
    try:
        yield tailer
    finally:
        tailer.readers -= Counter([reader])
        if not tailer.readers:
            tailer.stop()
            if _tailers.get(key) is tailer:
                del _tailers[key]


def num_followers() -> int:
    return sum(tailer.readers.total() for tailer in _tailers.values())


class Tailer:
    """Reads one draft for all who follow it in this process, and looks after their right to it."""

    def __init__(self, draft_id: int) -> None:
        self.draft_id = draft_id
        self.readers: Counter[Reader] = Counter()
        self.refused: set[Reader] = set()
        self.changed = asyncio.Event()
        self.error: Exception | None = None
        self._text = _Text()
        self._state: Event | None = None
        self._num_states = self._num_pings = 0
        self._hinted = asyncio.Event()
        self._spoke_at = self._checked_at = self._saw_at = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._run())]

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    def event_for(self, place: _Place, reader: Reader) -> Event | None:
        """What a follower at this place is told next, which moves the place; None: nothing yet."""
        if reader in self.refused:
            raise NotWelcome
        if self.error:
            raise StreamBroken from self.error
        if self._state is None:
            return None
        text = self._text
        place.attempt = place.attempt or text.attempt
        if place.attempt != text.attempt:
            place.attempt, place.seq = text.attempt, 0
            return Event({"type": "reset", "attempt": text.attempt})
        place.seq = min(place.seq, text.last_seq)  # beyond the end it would swallow the chunks up to it
        if place.seq < text.last_seq:
            chunk = text.after(place.seq, num_tokens=self._state.data["num_tokens"])
            place.seq = chunk.data["seq"]
            return chunk
        if place.num_states != self._num_states:
            place.num_states, place.num_pings = self._num_states, self._num_pings
            return self._state
        if place.num_pings != self._num_pings:
            place.num_pings = self._num_pings
            return PING
        return None

    async def _listen(self) -> None:
        """Hints wake the tailer. Where Redis cannot be asked for them it polls, and asks again later."""
        layer = get_channel_layer()
        while True:
            with suppress(RedisError, OSError):
                channel = await layer.new_channel()
                await layer.group_add(group_name(self.draft_id), channel)
                try:
                    while True:
                        self._hinted.set()  # at first for what was committed before it could be heard
                        await layer.receive(channel)
                finally:
                    await layer.group_discard(group_name(self.draft_id), channel)
            await asyncio.sleep(RESUBSCRIBE_S)

    async def _run(self) -> None:
        try:
            while True:
                self._hinted.clear()
                if await self._look():
                    self._wake_followers()
                await asyncio.sleep(REST_PER_FOLLOWER_S * num_followers())
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._hinted.wait(), POLL_S)
        except Exception as error:  # the edge of the loop: the followers come back with their cursors
            logger.exception("the tailer of draft %s broke", self.draft_id)
            self.error = error
            self._wake_followers()

    def _wake_followers(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()

    async def _look(self) -> bool:
        """Read what was committed since the last look; True if there is something to tell."""
        now = time.monotonic()
        to_check = set(self.readers) if now - self._checked_at >= RECHECK_S else set()
        try:
            seen, unwelcome = await _visit(self.draft_id, self._text.attempt, self._text.last_seq, to_check)
        except DatabaseProblem as problem:
            if now - self._saw_at > OUTAGE_S:
                raise
            logger.warning("draft %s cannot be read now: %s", self.draft_id, problem)
            return False
        self._saw_at = now
        if to_check:
            self._checked_at = now
        self.refused |= unwelcome
        is_told = self._take(*seen) if seen else self._refuse_all()
        if not is_told and now - self._spoke_at >= PING_S:
            self._num_pings += 1
            is_told = True
        if is_told:
            self._spoke_at = now
        return is_told or bool(unwelcome)

    def _take(self, state: Message, pieces: list[str]) -> bool:
        is_longer = self._text.take(state, pieces)
        is_other = self._state is None or _is_other(self._state.data, state)
        self._num_states += is_other
        self._state = Event({"type": "state", **state})
        return is_longer or is_other

    def _refuse_all(self) -> bool:
        self.refused |= set(self.readers)
        return True


def _is_other(told: Message, state: Message) -> bool:
    """Chunks tell their own number and the tokens: these alone are no change of state."""
    return any(told[name] != state[name] for name in state if name not in _NOT_TOLD_ALONE)


@dataclass
class _Text:
    """The chunks of one attempt, all of them: `ends[seq]` is where chunk `seq` ends."""

    attempt: int = 0
    text: str = ""
    ends: list[int] = field(default_factory=lambda: [0])
    _events: dict[int, Event] = field(default_factory=dict)

    @property
    def last_seq(self) -> int:
        return len(self.ends) - 1

    def take(self, state: Message, pieces: list[str]) -> bool:
        """Append what was read after `last_seq` of this attempt, or the whole of another attempt."""
        is_another = state["attempt"] != self.attempt
        if is_another:
            self.attempt, self.text, self.ends = state["attempt"], "", [0]
        if self.last_seq + len(pieces) != state["last_seq"]:
            raise ChunksMissing(f"{len(pieces)} chunks after {self.last_seq}, not up to {state['last_seq']}")
        if pieces or is_another:
            self._events.clear()
        for piece in pieces:
            self.ends.append(self.ends[-1] + len(piece))
        self.text += "".join(pieces)
        return bool(pieces) or is_another

    def after(self, seq: int, *, num_tokens: int) -> Event:
        """The chunks that follow, joined up to the length of a frame."""
        if seq not in self._events:
            start = self.ends[seq]
            last = max(seq + 1, bisect_right(self.ends, start + MAX_FRAME_CHARS) - 1)
            self._events[seq] = Event(
                {
                    "type": "chunk",
                    "attempt": self.attempt,
                    "first": seq + 1,
                    "seq": last,
                    "text": self.text[start : self.ends[last]],
                    "num_tokens": num_tokens,
                }
            )
        return self._events[seq]


@database_sync_to_async
def _visit(
    draft_id: int, attempt: int, after: int, readers: Collection[Reader]
) -> tuple[tuple[Message, list[str]] | None, set[Reader]]:
    """The draft with its chunks after the cursor, None if it is gone; and who may not read it any more."""
    return _read(draft_id, attempt, after), set(readers) - welcome(draft_id, readers)


def _read(draft_id: int, attempt: int, after: int) -> tuple[Message, list[str]] | None:
    """One statement, so that the draft is never ahead of its chunks nor behind them."""
    chunks = Chunk.objects.filter(
        draft=OuterRef("pk"), attempt=OuterRef("attempt"), seq__gt=after, seq__lte=OuterRef("last_seq")
    )
    drafts = Draft.objects.select_related("job").defer("text", "generated_text", "messages")
    pieces = ArraySubquery(chunks.order_by("seq").values("text"))
    draft = drafts.annotate(pieces=pieces).filter(pk=draft_id).first()
    if draft is None:
        return None
    if draft.attempt != attempt and after:
        return _read(draft_id, draft.attempt, 0)
    return snapshot(draft), draft.pieces  # type: ignore[attr-defined]  # annotated above
