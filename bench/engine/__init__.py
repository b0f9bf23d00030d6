"""The claims of the engine, each held against a peer or against a limit of the machine.

`make bench-engine` measures all sections; BENCH_ONLY=presets,adapters some of them, and
BENCH_ROUNDS=1 quickly and badly. Peers are found through LLAMA_BIN_DIR (llama-server and
llama-batched-bench), LLAMA_SERVER_PYTHON and LLAMA_EXAMPLES_SERVER; see `bench.peers`. All sides run
on the same GGUF with the same prompts, interleaved, so that a busy moment of the machine hits all.
"""

import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from bench.engine import (
    adapters,
    backlog,
    limit,
    memory,
    neighbour,
    peers,
    presets,
    reproducible,
    throughput,
)
from bench.engine.models import Bench
from bench.engine.rows import not_compared
from bench.form import ONLY, Row, table
from inference.quiet import quiet_llama

SECTIONS: dict[str, Callable[[Bench], list[Row]]] = {
    "throughput": throughput.measure,
    "presets": presets.measure,
    "adapters": adapters.measure,
    "neighbour": neighbour.measure,
    "backlog": backlog.measure,
    "limit": limit.measure,
    "memory": memory.measure,
    "reproducible": reproducible.measure,
    "peers": peers.measure,
}


def measure() -> list[Row]:
    if unknown := set(ONLY) - set(SECTIONS):
        raise SystemExit(f"BENCH_ONLY: unknown {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    quiet_llama()
    return [row for name in ONLY or SECTIONS for row in _section(name)]


def _section(name: str) -> list[Row]:
    """What it brought is shown at once: an hour's figures must not wait for the last one."""
    with tempfile.TemporaryDirectory(prefix="galley-bench-") as scratch:
        try:
            rows = SECTIONS[name](Bench(Path(scratch)))
        except Exception as error:  # noqa: BLE001 - the figures of the other sections are worth an hour
            traceback.print_exc()
            rows = [not_compared(f"section {name}", "to be measured", repr(error))]
    print(f"{name}\n{table(rows)}\n", file=sys.stderr, flush=True)
    return rows
