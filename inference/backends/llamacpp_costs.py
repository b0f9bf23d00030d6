"""What a forward pass of a model costs on this machine, timed once and kept."""

import json
import logging
import os
import platform
import time
from hashlib import sha256
from pathlib import Path

from inference.backends.llamacpp_lane import Batch, LlamaLane
from inference.engine.costs import CostTable

logger = logging.getLogger(__name__)

_SIZES = (1, 2, 3, 4, 6, 8, 12, 15, 16, 20, 24, 28, 32, 48, 64, 128)
_NUM_TRIES = 3
_TOKEN = 0  # which token it is makes no difference to the time


def measured_costs(
    lane: LlamaLane, batch: Batch, *, cache: Path, model: str, max_sequences: int, threads: int
) -> CostTable:
    """The table from the folder `cache`, or a new one; `model` is a SHA-256.

    Up to `max_sequences` tokens stand for one new token in so many texts, with logits each; more
    are read as parts of a prompt, without.
    """
    key = repr((model, max_sequences, threads, platform.processor(), _processor()))
    path = cache / f"{sha256(key.encode()).hexdigest()[:24]}.json"
    if kept := _read(path):
        return CostTable(kept)
    measured = {size: _milliseconds(lane, batch, size, max_sequences, threads) for size in _SIZES}
    _write(path, measured)
    return CostTable(measured)


def _milliseconds(lane: LlamaLane, batch: Batch, size: int, max_sequences: int, threads: int) -> float:
    """The best of a few passes: what others did on the machine meanwhile is no cost of ours."""
    best = float("inf")
    for _ in range(_NUM_TRIES):
        batch.clear()
        for number in range(size):
            slot, position = (number, 0) if number < max_sequences else (0, number - max_sequences + 1)
            batch.add(_TOKEN, position=position, slot=slot, has_logits=number < max_sequences)
        began = time.perf_counter()
        batch.run(lane, threads=threads)
        lane.synchronize()
        best = min(best, time.perf_counter() - began)
        lane.clear()
    return best * 1e3


def _read(path: Path) -> dict[int, float]:
    try:
        return {int(size): float(cost) for size, cost in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _write(path: Path, measured: dict[int, float]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(measured))
        os.replace(fresh, path)
    except OSError as error:
        logger.warning("the measured costs could not be kept: %s", error)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("model name")), "")
