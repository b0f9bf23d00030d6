"""What the stream costs: against the engine's door alone, and with a thousand browsers.

`BENCH_ONLY=overhead,load,...` measures some sections; BENCH_STREAM_SECONDS is the length of the
load (300), BENCH_STREAM_ROUNDS the number of texts that each of eight writers asks for.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.form import ONLY, Row
from bench.stream import load, overhead

SECTIONS: dict[str, Callable[[Path], list[Row]]] = {
    "first": overhead.first_token,
    "overhead": overhead.with_fake,
    "model": overhead.with_model,
    "load": load.measure,
}


def measure() -> list[Row]:
    if unknown := set(ONLY) - set(SECTIONS):
        raise SystemExit(f"BENCH_ONLY: unknown {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    rows = []
    for name in ONLY or SECTIONS:
        with tempfile.TemporaryDirectory(prefix="galley-bench-") as scratch:
            rows += SECTIONS[name](Path(scratch) / "home")
    return rows
