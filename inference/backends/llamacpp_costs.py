"""The time of a llama.cpp pass, for the table of costs and for the choice of the attention."""

import time
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

from inference.backends import costs
from inference.backends.llamacpp_lane import Batch, LlamaLane
from inference.engine.costs import CostTable

_TOKEN = 0  # which token it is makes no difference to the time
_BUDGET_S = 4.0  # by kind: its costs are a staircase, so that few sizes would mislead; they are measured once
_TEXT_TOKENS = 200  # of each text that a pass goes on with: a draft half-way


def quickest_attention(
    open_lane: Callable[[int], LlamaLane],
    kinds: Iterable[int],
    batch: Batch,
    *,
    cache: Path,
    model: str,
    max_sequences: int,
    threads: int,
) -> tuple[int, CostTable]:
    """That kind of attention with which the engine is quicker at half load, and its costs.

    `open_lane` makes a lane with a kind, which is closed again; `model` is a SHA-256. Of tables that
    lie in the folder `cache` nothing is measured again.
    """
    tables: dict[int, CostTable] = {}
    for kind in kinds:
        timer = _Timer(lambda kind=kind: open_lane(kind), batch, max_sequences, threads)  # type: ignore[misc]
        key = (model, kind, max_sequences, _TEXT_TOKENS, threads, *costs.processor())
        tables[kind] = costs.measured_costs(timer, key=key, cache=cache, budget_s=_BUDGET_S)
        timer.close()
    best = min(tables, key=lambda kind: tables[kind].of(max(1, max_sequences // 2)))
    return best, tables[best]


class _Timer:
    """Times passes in a lane that is full of texts.

    Up to `max_sequences` tokens stand for one new token in so many texts, with logits each; more
    are read as parts of a prompt, without.
    """

    def __init__(
        self, open_lane: Callable[[], LlamaLane], batch: Batch, max_sequences: int, threads: int
    ) -> None:
        self._open_lane, self._batch = open_lane, batch
        self._max_sequences, self._threads = max_sequences, threads

    def __call__(self, size: int) -> float:
        """Seconds of a pass over `size` tokens."""
        lane, num_texts = self._lane, min(size, self._max_sequences)
        self._batch.clear()
        for slot in range(num_texts):
            self._batch.add(_TOKEN, position=self._num_tokens, slot=slot, has_logits=True)
        for position in range(size - num_texts):
            self._batch.add(_TOKEN, position=position, slot=self._max_sequences, has_logits=False)
        seconds = self._run(lane)
        for slot in range(num_texts):
            lane.rewind(slot, self._num_tokens)
        lane.free(self._max_sequences)
        return seconds

    def close(self) -> None:
        if "_lane" in self.__dict__:
            self._lane.close()

    @cached_property
    def _lane(self) -> LlamaLane:
        """A lane whose texts have cells of their own: one is read, the others are its copies."""
        lane = self._open_lane()
        self._num_tokens = min(_TEXT_TOKENS, lane.params.n_ctx // (2 * self._max_sequences))
        self._batch.clear()
        for position in range(self._num_tokens):
            self._batch.add(_TOKEN, position=position, slot=0, has_logits=False)
        self._run(lane)
        text = lane.save(0)
        for slot in range(1, self._max_sequences):
            lane.restore(slot, text)
        return lane

    def _run(self, lane: LlamaLane) -> float:
        began = time.perf_counter()
        self._batch.run(lane, threads=self._threads)
        lane.synchronize()
        return time.perf_counter() - began
