"""Which tokens are computed next. Plain Python: no weights, no clock, no thread.

Sequences of one lane share a batch, and lanes share the time, so no adapter waits for another's
texts to end. A sequence is admitted when its lane has cells for its longest possible answer. When
adapters outnumber lanes, or people wait behind a backlog, running texts are *parked*: the backend
saves what they have computed, and they go on from there later. Nothing that runs is thrown out.
While a person waits for a first word, batch texts pause.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from inference.engine.costs import UNMEASURED, CostTable
from inference.engine.lanes import Copy, Lane, Prefix
from inference.engine.queue import BATCH_SHARE, WEIGHTS, FairQueue
from inference.engine.sequence import Sequence
from inference.types import AdapterRef, RequestClass

_MAX_SLOWDOWN = 2.0
"""Of a step that writes, by batch texts or by the reading of a prompt beside it or before it."""

_MAX_PAUSE = int(WEIGHTS["interactive"] / WEIGHTS["batch"])
"""Steps in a row that may leave batch texts out for the sake of first words."""

_MAX_GUESSING = 2  # texts; more of them fill a step by themselves

_RESERVED_PART = 4  # one slot in so many is never given to batch texts

_MIN_CHUNK = 16  # tokens of a prompt that are read in any case, so that its own first token comes


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`kv_cells` are tokens per lane, `max_queued` counts one class, `quantum` is in turns of a lane."""

    max_sequences: int
    kv_cells: int
    max_lanes: int = 3
    max_prefixes: int = 0
    max_guesses: int = 0
    max_queued: int = 256
    step_tokens: int = 512
    quantum: int = 16


@dataclass(frozen=True)
class Row:
    """The next pending tokens of one sequence; the last row of what is known samples a token.

    `guesses` are tokens that may follow. They are computed as well, each with logits, and where
    the tokens drawn are those guessed the pass has brought several.
    """

    sequence: Sequence
    num_tokens: int
    guesses: tuple[int, ...] = ()

    @property
    def token_ids(self) -> list[int]:
        start = self.sequence.num_computed
        return self.sequence.ids[start : start + self.num_tokens]

    @property
    def samples(self) -> bool:
        return self.num_tokens == self.sequence.num_pending


@dataclass(frozen=True)
class Parked:
    """A sequence that has to leave its slot before anything else is computed."""

    sequence: Sequence
    slot: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """One forward pass in `lane`, with its `adapter`, and what comes before it, in this order.

    Save the `parked`, in whichever lane they are. Give up the lanes in `closed`. Then in the lane:
    empty the `dropped` slots, look for the prefixes in `lookups` on disk, share the cells of
    `copies` and write the prefixes in `built` to disk. A step may have no rows.
    """

    lane: str | None
    adapter: AdapterRef | None
    rows: tuple[Row, ...]
    parked: tuple[Parked, ...] = ()
    closed: tuple[str | None, ...] = ()
    dropped: tuple[int, ...] = ()
    lookups: tuple[Prefix, ...] = ()
    copies: tuple[Copy, ...] = ()
    built: tuple[Prefix, ...] = ()


@dataclass
class _Moves:
    """What was decided since the last step and that the backend has still to carry out."""

    parked: list[Parked] = field(default_factory=list)
    closed: list[str | None] = field(default_factory=list)


class Scheduler:
    def __init__(self, limits: Limits, costs: CostTable = UNMEASURED) -> None:
        self.limits = limits
        self._costs = costs
        self._queue = FairQueue()
        self._lanes: dict[str | None, Lane] = {}  # the lane that worked last stands last
        self._moves = _Moves()
        self._pause = 0  # steps since batch texts had their last chance
        self.num_parked = 0

    @property
    def waiting(self) -> list[Sequence]:
        return list(self._queue)

    @property
    def num_waiting(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> list[Sequence]:
        return [sequence for lane in self._lanes.values() for sequence in lane.running]

    @property
    def lanes(self) -> tuple[str | None, ...]:
        return tuple(self._lanes)

    @property
    def adapters(self) -> tuple[str, ...]:
        """SHA-256 of the adapters that are in use."""
        used = {lane.adapter.sha256: None for lane in self._lanes.values() if lane.adapter}
        return tuple(used)

    @property
    def num_prefix_tokens(self) -> int:
        return sum(lane.num_prefix_tokens for lane in self._lanes.values())

    @property
    def is_idle(self) -> bool:
        return not self._queue and not self.running

    def is_full(self, request_class: RequestClass) -> bool:
        return self._queue.num_of(request_class) >= self.limits.max_queued

    def add(self, sequence: Sequence) -> None:
        self._queue.add(sequence)

    def find(self, ticket: int) -> Sequence | None:
        return next((s for s in chain(self.running, self._queue.in_any_order()) if s.ticket == ticket), None)

    def expired(self, now: float) -> list[Sequence]:
        return [s for s in chain(self.running, self._queue.in_any_order()) if s.deadline <= now]

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it stands; its slot and cells are free again."""
        lane = self._lanes.get(sequence.lane)
        if lane and sequence in lane.running:
            lane.remove(sequence)
        else:
            self._queue.remove(sequence)

    def drop_lane(self, key: str | None) -> list[Sequence]:
        """Give up a lane that cannot work; the sequences that ran in it come back."""
        return self._lanes.pop(key).running

    def schedule(self) -> Step | None:
        """Admit what fits, then pick the lane whose turn it is: its decodes, then some prefill."""
        self._admit()
        key, lane = self._next_lane()
        if lane is None:
            return None
        lookups = lane.lookups()
        built = lane.finished_prefixes()
        copies = [Copy(prefix.builder.slot, prefix.slot, len(prefix.ids)) for prefix in built]
        copies += lane.copies()
        rows = () if lookups else tuple(self._rows(lane))
        if rows:  # a lane that only looks for prefixes keeps its turn
            self._lanes[key] = self._lanes.pop(key)
            self._charge(lane, rows)
        moves, self._moves = self._moves, _Moves()
        return Step(
            lane=key,
            adapter=lane.adapter,
            rows=rows,
            parked=tuple(moves.parked),
            closed=tuple(moves.closed),
            dropped=lane.dropped_slots(),
            lookups=lookups,
            copies=tuple(copies),
            built=built,
        )

    # --- admission -------------------------------------------------------------------------------

    def _admit(self) -> None:
        """In fair order; one that has no room holds back those behind it that want the same lane."""
        blocked: set[str | None] = set()
        for sequence in self._queue:
            is_for_people = self._is_crowded or self._is_reserved
            if is_for_people and not self._queue.num_of("interactive"):
                return
            if self._is_crowded and not self._spare():
                return
            if is_for_people and _is_batch(sequence):
                continue
            lane = self._lane_for(sequence)
            if lane is None or sequence.lane in blocked or not self._has_room(lane, sequence):
                blocked.add(sequence.lane)
                continue
            if not self._is_crowded or self._park_for(sequence):
                self._queue.admit(sequence)
                self._wake(lane)
                lane.admit(sequence)

    def _wake(self, lane: Lane) -> None:
        """A lane that was idle starts level with the others and gains nothing for having been away."""
        busy = [other.time_given for other in self._lanes.values() if other.running]
        if busy and not lane.running:
            lane.time_given = max(lane.time_given, min(busy))

    @property
    def _is_crowded(self) -> bool:
        return len(self.running) == self.limits.max_sequences

    @property
    def _is_reserved(self) -> bool:
        """Whether the slots that are left are for people: parking takes longer than a first word."""
        num_batch = sum(map(_is_batch, self.running))
        return num_batch >= self.limits.max_sequences - self.limits.max_sequences // _RESERVED_PART

    def _has_room(self, lane: Lane, sequence: Sequence) -> bool:
        while not (lane.has_slot and lane.has_cells(sequence)):
            if not self._park_for(sequence, lane):
                return False
        return True

    def _park_for(self, sequence: Sequence, lane: Lane | None = None) -> bool:
        """Park the batch text that began last, if a person waits; in `lane`, or in any."""
        spare = [one for one in self._spare() if lane is None or one in lane.running]
        if _is_batch(sequence) or not spare:
            return False
        self._park(max(spare, key=lambda one: one.ticket))
        return True

    def _spare(self) -> list[Sequence]:
        """Running batch texts, when they are more than the share that their class keeps in any case."""
        batch = [s for s in self.running if _is_batch(s)]
        return batch if len(batch) > self.limits.max_sequences * BATCH_SHARE else []

    def _park(self, sequence: Sequence) -> None:
        self.num_parked += 1
        if sequence.num_computed:
            self._moves.parked.append(Parked(sequence, sequence.slot))
        self._lanes[sequence.lane].remove(sequence)
        sequence.slot = -1
        self._queue.put_back(sequence)

    def _lane_for(self, sequence: Sequence) -> Lane | None:
        """The lane of the sequence's adapter; with too many adapters the one that had its turns ends."""
        if lane := self._lanes.get(sequence.lane):
            return lane
        if len(self._lanes) == self.limits.max_lanes and not self._close_lane():
            return None
        is_alone = sequence.request.reproducible
        lane = Lane(
            sequence.request.adapter,
            max_sequences=1 if is_alone else self.limits.max_sequences,
            max_prefixes=0 if is_alone else self.limits.max_prefixes,
            kv_cells=self.limits.kv_cells,
        )
        self._lanes[sequence.lane] = lane
        return lane

    def _close_lane(self) -> bool:
        """Close the lane that is idle for longest, or else the one that had the most turns."""
        over = [key for key, lane in self._lanes.items() if not lane.running]
        if not over:
            over = [key for key, lane in self._lanes.items() if lane.num_turns >= self.limits.quantum]
            over.sort(key=lambda key: -self._lanes[key].num_turns)
        if not over:
            return False
        for sequence in list(self._lanes[over[0]].running):
            self._park(sequence)
        del self._lanes[over[0]]
        self._moves.closed.append(over[0])
        return True

    # --- whose turn ------------------------------------------------------------------------------

    def _next_lane(self) -> tuple[str | None, Lane | None]:
        """The lane that was given the least time; before it those in which a person waits for a word."""
        busy = {key: lane for key, lane in self._lanes.items() if lane.running}
        if self._may_pause:
            first = {key: lane for key, lane in busy.items() if lane.awaited()}
        else:
            first = {key: lane for key, lane in busy.items() if any(map(_is_batch, lane.running))}
        pool = first or busy
        key = min(pool, key=lambda key: pool[key].time_given, default=None)
        return key, pool.get(key)

    def _charge(self, lane: Lane, rows: tuple[Row, ...]) -> None:
        lane.num_turns += 1
        lane.time_given += self._costs.of(sum(row.num_tokens + len(row.guesses) for row in rows))
        self._pause = 0 if any(_is_batch(row.sequence) for row in rows) else self._pause + 1

    @property
    def _may_pause(self) -> bool:
        """Whether batch texts may be left out of the next step."""
        return self._pause < _MAX_PAUSE

    # --- rows ------------------------------------------------------------------------------------

    def _rows(self, lane: Lane) -> Iterator[Row]:
        """People's texts, as many batch texts as keep their step short enough, then prompts."""
        decodes = [sequence for sequence in lane.running if sequence.num_pending == 1]
        prompts = [s for s in lane.running if s.num_pending > 1 and not lane.is_waiting(s)]
        awaited = lane.awaited() if self._may_pause else []
        if awaited:
            decodes, prompts = [s for s in decodes if not _is_batch(s)], awaited
        decodes = self._fluent(lane, decodes)
        yield from self._with_guesses(decodes) if not prompts else (Row(s, 1) for s in decodes)
        budget = self._prefill_budget(lane, decodes, awaited)
        for sequence in prompts:
            if num_tokens := min(_next_part(sequence), budget):
                yield Row(sequence, num_tokens)
                budget -= num_tokens

    def _fluent(self, lane: Lane, decodes: list[Sequence]) -> list[Sequence]:
        """All texts of people; beside them those of the batch class by turns."""
        people = [s for s in decodes if not _is_batch(s)]
        others = [s for s in decodes if _is_batch(s)]
        if not people or not others:
            return decodes
        limit = _MAX_SLOWDOWN * self._costs.of(len(people))
        least = len(people) + (0 if self._may_pause else 1)
        chosen = others[: self._costs.most_within(limit, least=least, most=len(decodes)) - len(people)]
        for sequence in chosen:  # behind those that had no turn
            lane.running.remove(sequence)
            lane.running.append(sequence)
        return people + chosen

    def _with_guesses(self, decodes: list[Sequence]) -> Iterator[Row]:
        """Where few write, rows are nearly free, and a guess that comes true is a step saved."""
        num_rows = len(decodes)
        for sequence in decodes:
            guesses: tuple[int, ...] = ()
            if len(decodes) <= _MAX_GUESSING and not sequence.request.reproducible:
                most = min(self.limits.max_guesses, sequence.max_ids - len(sequence.ids) - 1)
                guesses = sequence.guess(self._costs, num_rows=num_rows, most=most)
            num_rows += len(guesses)
            yield Row(sequence, 1, guesses)

    def _prefill_budget(self, lane: Lane, decodes: list[Sequence], awaited: list[Sequence]) -> int:
        """Tokens of prompts in a step: few enough for the texts beside it and the people behind it.

        A text that is to be reproducible is alone in its lane, and its prompt's parts are the same
        whatever the others do.
        """
        others = [s for other in self._lanes.values() if other is not lane for s in other.running]
        is_first = bool(awaited) and all(map(_is_batch, others))
        is_alone = any(s.request.reproducible for s in lane.running)
        most = self.limits.step_tokens - len(decodes)
        if not decodes and (is_first or is_alone):
            return most
        limit = _MAX_SLOWDOWN * self._costs.of(len(decodes) or self.limits.max_sequences)
        least = len(decodes) + min(_MIN_CHUNK, most)
        return self._costs.most_within(limit, least=least, most=self.limits.step_tokens) - len(decodes)


def _next_part(sequence: Sequence) -> int:
    """Tokens up to the end of what is shared, or of the prompt.

    They are never computed together: whether a beginning is found or computed, the rest of the
    prompt goes through the same kernels, and a text that is written alone is the same text.
    """
    is_shared = sequence.num_computed < sequence.num_shared
    return sequence.num_shared - sequence.num_computed if is_shared else sequence.num_pending


def _is_batch(sequence: Sequence) -> bool:
    return sequence.request.request_class == "batch"
