"""What a forward pass of a model costs on this machine, timed once and kept. A backend times the passes."""

import json
import logging
import math
import os
import platform
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path

from inference.engine.costs import CostTable

logger = logging.getLogger(__name__)

SIZES = (1, 32, 8, 128, 16, 4, 64, 24, 2, 12, 48, 3, 6, 15, 20, 28)
"""Tokens of a pass, the most telling first: where time runs out the others lie on lines between them."""

_NUM_ROUNDS = 3


def measured_costs(
    seconds_of: Callable[[int], float],
    *,
    key: tuple[object, ...],
    cache: Path | None,
    sizes: Iterable[int] = SIZES,
    budget_s: float = 2.0,
) -> CostTable:
    """The table from the folder `cache`, or a new one.

    `seconds_of` runs a pass over so many tokens and tells how long it took. `key` names all that
    the costs depend on. Once `budget_s` seconds are spent no other size is begun, except that there
    are always two.
    """
    path = cache / f"{sha256(repr(key).encode()).hexdigest()[:24]}.json" if cache else None
    if path and (kept := _read(path)):
        return kept
    measured = _measure(seconds_of, tuple(sizes), budget_s)
    if path:
        _write(path, measured)
    return CostTable(measured)


def processor() -> tuple[str, str]:
    """What the processor calls itself, to Python and to Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return platform.processor(), next((line for line in lines if line.startswith("model name")), "")


def _measure(seconds_of: Callable[[int], float], sizes: tuple[int, ...], budget_s: float) -> dict[int, float]:
    """Milliseconds by size: the best of all rounds, as what others did meanwhile is no cost of ours."""
    seconds_of(sizes[0])  # the very first pass also finds kernels and memory
    best: dict[int, float] = {}
    spent = 0.0
    for size in sizes * _NUM_ROUNDS:
        if len(best) > 1 and spent >= budget_s:
            break
        seconds = seconds_of(size)
        spent += seconds
        best[size] = min(best.get(size, math.inf), seconds * 1e3)
    return best


def _read(path: Path) -> CostTable | None:
    try:
        return CostTable({int(size): float(cost) for size, cost in json.loads(path.read_text()).items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _write(path: Path, measured: dict[int, float]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(measured))
        os.replace(fresh, path)
    except OSError as error:
        logger.warning("the measured costs could not be kept: %s", error)
