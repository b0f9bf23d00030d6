"""The time of a llama.cpp pass, for the table of costs."""

import time
from functools import partial
from pathlib import Path

from inference.backends import costs
from inference.backends.llamacpp_lane import Batch, LlamaLane
from inference.engine.costs import CostTable

_TOKEN = 0  # which token it is makes no difference to the time
_BUDGET_S = 10.0  # its costs are a staircase, so that few sizes would mislead; they are measured once


def measured_costs(
    lane: LlamaLane, batch: Batch, *, cache: Path, model: str, max_sequences: int, threads: int
) -> CostTable:
    """The table from the folder `cache`, or a new one; `model` is a SHA-256.

    Up to `max_sequences` tokens stand for one new token in so many texts, with logits each; more
    are read as parts of a prompt, without.
    """
    seconds_of = partial(_seconds_of, lane, batch, max_sequences=max_sequences, threads=threads)
    key = (model, max_sequences, threads, *costs.processor())
    return costs.measured_costs(seconds_of, key=key, cache=cache, budget_s=_BUDGET_S)


def _seconds_of(lane: LlamaLane, batch: Batch, size: int, *, max_sequences: int, threads: int) -> float:
    batch.clear()
    for number in range(size):
        slot, position = (number, 0) if number < max_sequences else (0, number - max_sequences + 1)
        batch.add(_TOKEN, position=position, slot=slot, has_logits=number < max_sequences)
    began = time.perf_counter()
    batch.run(lane, threads=threads)
    lane.synchronize()
    seconds = time.perf_counter() - began
    lane.clear()
    return seconds
