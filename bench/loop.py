"""The steps of the whole loop on a running stack, as `manage.py demo_loop` measures them."""

import json
import tempfile
from pathlib import Path

from bench.form import Row
from tests.support.stack import StackFailed, running_stack

MAX_ROLLBACK_MS = 5000.0


def measure() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="galley-bench-") as folder, running_stack(Path(folder)) as stack:
        told = stack.manage("demo_loop", "--json")
        if told.returncode:
            raise StackFailed(f"demo_loop ended with {told.returncode}: {told.stderr}{told.stdout}")
        figures = json.loads(told.stdout.splitlines()[-1])
    before, after = figures["edit distance before"], figures["edit distance after"]
    return [
        *(
            Row(claim=name, figure=value, unit=_unit(name))
            for name, value in figures.items()
            if not name.startswith(("edit distance", "roll back"))
        ),
        Row(
            claim="edit distance to the house rule after training",
            figure=after,
            unit="",
            peer=f"{before} before",
            bar="< before",
            holds=after < before,
        ),
        Row(
            claim="roll back",
            figure=figures["roll back, ms"],
            unit="ms",
            bar=f"< {MAX_ROLLBACK_MS:.0f} ms",
            holds=figures["roll back, ms"] < MAX_ROLLBACK_MS,
        ),
    ]


def _unit(name: str) -> str:
    return name.rpartition(", ")[2] if ", " in name else "nats/token"
