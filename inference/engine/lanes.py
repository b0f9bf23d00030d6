"""A lane: one adapter on the shared model, its KV cells, and the prompts that its texts share."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from inference.engine.sequence import Sequence
from inference.types import AdapterRef


@dataclass(eq=False)
class Prefix:
    """The beginning that many prompts of a lane have in common; it lives in a slot of its own.

    It is looked for on disk first (the backend sets `is_ready`). Otherwise the `builder`, one of the
    `users`, computes it as a part of its own prompt while the others wait for it.
    """

    ids: tuple[int, ...]
    slot: int
    builder: Sequence
    users: list[Sequence] = field(default_factory=list)
    is_looked_up: bool = False
    is_ready: bool = False


@dataclass(frozen=True)
class Copy:
    """The first `num_tokens` tokens of one slot's cells are shared with another slot."""

    source: int
    target: int
    num_tokens: int


class Lane:
    """Slots below `max_sequences` are for texts, those above for prefixes. All sizes are in tokens."""

    def __init__(
        self, adapter: AdapterRef | None, *, max_sequences: int, max_prefixes: int, kv_cells: int
    ) -> None:
        self.adapter = adapter
        self.running: list[Sequence] = []
        self.num_turns = 0
        self.time_given = 0.0  # milliseconds that its steps were expected to take
        self._kv_cells = kv_cells
        # Slots are handed out from the low end: llama.cpp is faster with dense sequence ids.
        self._free_slots = list(reversed(range(max_sequences)))
        self._free_prefix_slots = list(reversed(range(max_sequences, max_sequences + max_prefixes)))
        self._prefixes: dict[tuple[int, ...], Prefix] = {}  # the one that was used last stands last
        self._prefix_of: dict[Sequence, Prefix] = {}
        self._dropped: list[int] = []

    @property
    def has_slot(self) -> bool:
        return bool(self._free_slots)

    @property
    def num_prefix_tokens(self) -> int:
        return sum(len(prefix.ids) for prefix in self._prefixes.values())

    @property
    def free_cells(self) -> int:
        used = sum(_own_cells(sequence, self._prefix_of.get(sequence)) for sequence in self.running)
        return self._kv_cells - used - self.num_prefix_tokens

    def has_cells(self, sequence: Sequence) -> bool:
        """Whether the longest possible answer fits; prefixes that nobody uses make room."""
        prefix = self._prefixes.get(_shared_ids(sequence))
        needed = _own_cells(sequence, prefix)
        while self.free_cells < needed:
            if not self._drop_prefix(but=prefix):
                return False
        return True

    def admit(self, sequence: Sequence) -> None:
        sequence.slot = self._free_slots.pop()
        self.running.append(sequence)
        if prefix := self._prefix_for(sequence):
            self._prefix_of[sequence] = prefix
            prefix.users.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a running sequence; its slot and cells are free again, a prefix may stay."""
        self.running.remove(sequence)
        self._free_slots.append(sequence.slot)
        if prefix := self._prefix_of.pop(sequence, None):
            prefix.users.remove(sequence)
            self._hand_over(prefix, sequence)

    def dropped_slots(self) -> tuple[int, ...]:
        """Prefix slots that were given up since the last call."""
        dropped, self._dropped = tuple(self._dropped), []
        return dropped

    def lookups(self) -> tuple[Prefix, ...]:
        """Prefixes that may lie on disk; each is looked for once."""
        new = tuple(prefix for prefix in self._prefixes.values() if not prefix.is_looked_up)
        for prefix in new:
            prefix.is_looked_up = True
        return new

    def finished_prefixes(self) -> tuple[Prefix, ...]:
        """Prefixes that their builders have computed since the last call."""
        built = tuple(
            prefix
            for prefix in self._prefixes.values()
            if not prefix.is_ready and prefix.builder.num_computed >= len(prefix.ids)
        )
        for prefix in built:
            prefix.is_ready = True
        return built

    def copies(self) -> Iterator[Copy]:
        """What running sequences take over from prefixes that are ready."""
        for sequence, prefix in self._prefix_of.items():
            if prefix.is_ready and sequence.num_computed < len(prefix.ids):
                sequence.num_computed = len(prefix.ids)
                yield Copy(prefix.slot, sequence.slot, len(prefix.ids))

    def is_waiting(self, sequence: Sequence) -> bool:
        """Whether another sequence is computing the beginning of this one's prompt."""
        prefix = self._prefix_of.get(sequence)
        return prefix is not None and not prefix.is_ready and prefix.builder is not sequence

    def awaited(self) -> list[Sequence]:
        """Whose prompts people wait for: their own, and the beginnings that another is computing for them."""
        people = [s for s in self.running if s.request.request_class == "interactive" and s.num_pending > 1]
        if not people:
            return []
        builders = {self._prefix_of[s].builder: None for s in people if self.is_waiting(s)}
        return [*builders, *(s for s in people if not self.is_waiting(s) and s not in builders)]

    def _prefix_for(self, sequence: Sequence) -> Prefix | None:
        ids = _shared_ids(sequence)
        if not ids:
            return None
        if ids in self._prefixes:
            prefix = self._prefixes[ids] = self._prefixes.pop(ids)
            return prefix
        if not self._free_prefix_slots and not self._drop_prefix():
            return None
        prefix = Prefix(ids, self._free_prefix_slots.pop(), sequence)
        self._prefixes[ids] = prefix
        return prefix

    def _drop_prefix(self, but: Prefix | None = None) -> bool:
        """Give up the prefix that nobody uses and that was used longest ago."""
        unused = (prefix for prefix in self._prefixes.values() if not prefix.users and prefix is not but)
        prefix = next(unused, None)
        if prefix is None:
            return False
        self._forget(prefix)
        return True

    def _hand_over(self, prefix: Prefix, sequence: Sequence) -> None:
        """A prefix whose builder leaves before it is done goes to the next user, or nowhere."""
        if prefix.is_ready or prefix.builder is not sequence:
            return
        if prefix.users:
            prefix.builder = prefix.users[0]
        else:
            self._forget(prefix)

    def _forget(self, prefix: Prefix) -> None:
        del self._prefixes[prefix.ids]
        self._free_prefix_slots.append(prefix.slot)
        self._dropped.append(prefix.slot)


def _shared_ids(sequence: Sequence) -> tuple[int, ...]:
    """Empty for a sequence that has computed more than that already."""
    if sequence.num_computed:
        return ()
    return tuple(sequence.ids[: sequence.num_shared])


def _own_cells(sequence: Sequence, prefix: Prefix | None) -> int:
    return sequence.max_ids - (len(prefix.ids) if prefix else 0)
