"""How long the second start takes, from the command to /healthz, and the stop after it."""

import tempfile
import time
from pathlib import Path

from bench.form import Row
from tests.support.stack import running_stack, stop

MAX_SECOND_START_S = 20.0


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="galley-bench-") as folder:
        with running_stack(Path(folder)) as stack:
            first = stack.seconds_to_start
        with running_stack(Path(folder)) as stack:
            second = stack.seconds_to_start
            began = time.monotonic()
            stop(stack.process, stack.log)
            stopped = time.monotonic() - began
    return [
        Row(claim="first start of an installed checkout, to /healthz", figure=first, unit="s"),
        Row(
            claim="second start, to /healthz",
            figure=second,
            unit="s",
            peer=f"first {first:.1f} s",
            bar=f"< {MAX_SECOND_START_S:.0f} s",
            holds=second < MAX_SECOND_START_S,
        ),
        Row(claim="Ctrl-C to the last process gone", figure=stopped, unit="s"),
    ]
