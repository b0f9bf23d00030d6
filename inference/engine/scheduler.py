"""Which tokens are computed next. Plain Python: no weights, no clock, no thread.

A *lane* is one adapter on the shared model with a KV pool of its own; sequences of one lane share
a batch, and lanes take turns, so no adapter waits for another's texts to end. A sequence is
admitted when its lane has cells for its longest possible answer: nothing that runs is ever
thrown out for want of memory.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from inference.engine.sequence import Sequence
from inference.types import AdapterRef, RequestClass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`kv_cells` are tokens per lane. Beside decodes a prefill gets few rows, to keep them fluent."""

    max_sequences: int
    kv_cells: int
    max_lanes: int = 3
    max_queued: int = 256
    step_tokens: int = 512
    prefill_beside_decode: int = 64


@dataclass(frozen=True)
class Row:
    """The next pending tokens of one sequence; the last row of what is known samples a token."""

    sequence: Sequence
    num_tokens: int

    @property
    def token_ids(self) -> list[int]:
        start = self.sequence.num_computed
        return self.sequence.ids[start : start + self.num_tokens]

    @property
    def samples(self) -> bool:
        return self.num_tokens == self.sequence.num_pending


@dataclass(frozen=True)
class Step:
    """One forward pass: rows of one lane, after the lanes in `closed` have been given up."""

    adapter: AdapterRef | None
    rows: tuple[Row, ...]
    closed: tuple[str | None, ...] = ()


@dataclass
class _Lane:
    adapter: AdapterRef | None
    free_slots: list[int]
    running: list[Sequence] = field(default_factory=list)

    @property
    def cells(self) -> int:
        return sum(sequence.max_ids for sequence in self.running)


class Scheduler:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._waiting: dict[RequestClass, deque[Sequence]] = {"interactive": deque(), "batch": deque()}
        self._lanes: dict[str | None, _Lane] = {}  # the lane that worked last stands last
        self._closed: list[str | None] = []

    @property
    def waiting(self) -> list[Sequence]:
        return list(chain.from_iterable(self._waiting.values()))

    @property
    def running(self) -> list[Sequence]:
        return [sequence for lane in self._lanes.values() for sequence in lane.running]

    @property
    def lanes(self) -> tuple[str | None, ...]:
        return tuple(self._lanes)

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.running

    @property
    def is_full(self) -> bool:
        return len(self.waiting) >= self.limits.max_queued

    def add(self, sequence: Sequence) -> None:
        self._waiting[sequence.request.request_class].append(sequence)

    def find(self, ticket: int) -> Sequence | None:
        return next((s for s in chain(self.running, self.waiting) if s.ticket == ticket), None)

    def expired(self, now: float) -> list[Sequence]:
        return [s for s in chain(self.running, self.waiting) if s.deadline <= now]

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it stands; its slot and cells are free again."""
        lane = self._lanes.get(sequence.lane)
        if lane and sequence in lane.running:
            lane.running.remove(sequence)
            lane.free_slots.append(sequence.slot)
        else:
            self._waiting[sequence.request.request_class].remove(sequence)

    def drop_lane(self, key: str | None) -> list[Sequence]:
        """Give up a lane that cannot work; the sequences that ran in it come back."""
        return self._lanes.pop(key).running

    def schedule(self) -> Step | None:
        """Admit what fits, then pick the lane whose turn it is: its decodes, then some prefill."""
        self._admit()
        key = next((key for key, lane in self._lanes.items() if lane.running), None)
        lane = self._lanes.get(key)
        if lane is None or not lane.running:
            return None
        self._lanes[key] = self._lanes.pop(key)
        closed, self._closed = tuple(self._closed), []
        return Step(lane.adapter, tuple(self._rows(lane)), closed)

    def _admit(self) -> None:
        """First come, first served in each class; interactive before batch.

        A sequence without room holds back those behind it in its lane only. One without a lane
        holds back everything: the busy lanes drain until one is free, so it cannot starve.
        """
        blocked: set[str | None] = set()
        for sequence in self.waiting:
            if len(self.running) == self.limits.max_sequences:
                return
            lane = self._lane_for(sequence)
            if lane is None:
                return
            if sequence.lane in blocked or lane.cells + sequence.max_ids > self.limits.kv_cells:
                blocked.add(sequence.lane)
                continue
            self._waiting[sequence.request.request_class].remove(sequence)
            sequence.slot = lane.free_slots.pop()
            lane.running.append(sequence)

    def _lane_for(self, sequence: Sequence) -> _Lane | None:
        if lane := self._lanes.get(sequence.lane):
            return lane
        if len(self._lanes) == self.limits.max_lanes:
            idle = next((key for key, lane in self._lanes.items() if not lane.running), sequence.lane)
            if idle == sequence.lane:
                return None
            del self._lanes[idle]
            self._closed.append(idle)
        # Slots are handed out from the low end: llama.cpp is faster with dense sequence ids.
        slots = list(reversed(range(self.limits.max_sequences)))
        return self._lanes.setdefault(sequence.lane, _Lane(sequence.request.adapter, slots))

    def _rows(self, lane: _Lane) -> Iterator[Row]:
        decodes = [sequence for sequence in lane.running if sequence.num_pending == 1]
        yield from (Row(sequence, 1) for sequence in decodes)
        budget = self.limits.prefill_beside_decode if decodes else self.limits.step_tokens
        for sequence in lane.running:
            num_tokens = min(sequence.num_pending, budget)
            if sequence.num_pending > 1 and num_tokens:
                yield Row(sequence, num_tokens)
                budget -= num_tokens
