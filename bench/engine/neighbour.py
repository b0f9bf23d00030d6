"""One busy process beside the engine: what is left of the idle machine's rate.

Each core is shared equally by those that want it. Of C cores one neighbour of a single thread and
of the same niceness takes half of one, so fairness leaves (C - 0.5) / C: three quarters of two cores.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median

from bench.bursts import NUM_THREADS, ROUNDS, Side, steady_rate
from bench.engine.models import Bench, Model
from bench.engine.ours import NUM_CELLS, Ours
from bench.engine.rows import Peers, at_least
from bench.form import Row
from bench.peers.llama_server import LlamaServer

NUM_TOKENS = 128
NUM_TEXTS = 8
FAIR_SHARE = (NUM_THREADS - 0.5) / NUM_THREADS
_SETTLE_S = 3.0  # longer than the engine needs to notice that a neighbour came or went
_BAR = 0.70

Rates = dict[str, list[tuple[float, float]]]
"""(idle, beside the neighbour) in tokens per second, by side and round."""


def measure(bench: Bench) -> list[Row]:
    model = bench.small
    with ExitStack() as stack:
        ours = stack.enter_context(Ours(model.path, bench.scratch))
        opener = partial(LlamaServer, model.path, num_slots=NUM_TEXTS, num_context=NUM_CELLS)
        peers = Peers(stack, opener)
        sides: dict[str, Side] = {"engine": ours} | peers.open
        rates: Rates = {name: [] for name in sides}
        for round_ in range(ROUNDS):
            for name, side in sides.items():
                rates[name].append(_idle_and_busy(side, model, round_))
    return [_row(name, found) for name, found in rates.items()] + peers.absent("busy neighbour")


def _idle_and_busy(side: Side, model: Model, round_: int) -> tuple[float, float]:
    idle = _settled_rate(side, model, f"idle {round_}")
    with busy_neighbour():
        return idle, _settled_rate(side, model, f"busy {round_}")


def _settled_rate(side: Side, model: Model, name: str) -> float:
    """Tokens per second of a burst, after as many of them as it takes to settle."""
    began = time.monotonic()
    while time.monotonic() - began < _SETTLE_S:
        side.write(model.prompts.briefs(f"settle {name}", NUM_TEXTS), NUM_TOKENS)
    return steady_rate(side.write(model.prompts.briefs(name, NUM_TEXTS), NUM_TOKENS))


@contextmanager
def busy_neighbour() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _row(name: str, rates: Sequence[tuple[float, float]]) -> Row:
    idle, busy = (median(found) for found in zip(*rates, strict=True))
    kept = median(busy / idle for idle, busy in rates) / FAIR_SHARE
    claim = f"{name}, busy neighbour: kept of the fair share of the idle rate"
    told = f"{busy:.0f} of {idle:.0f} tok/s, fair {FAIR_SHARE:.2f}"
    if name == "engine":
        return at_least(claim, kept, _BAR, unit="", peer=told)
    return Row(claim=claim, figure=kept, unit="", peer=told)
