"""The common form of a measurement and where its results are kept."""

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ONLY = tuple(filter(None, os.environ.get("BENCH_ONLY", "").split(",")))
"""Sections of a bench to be measured, where it has any; all by default."""

_PACKAGES = ("django", "celery", "channels", "torch", "transformers", "peft", "llama-cpp-python")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One claim. `figure` and `peer` are medians in `unit`; without a bar the row only informs."""

    claim: str
    figure: float
    unit: str
    peer: str = ""
    bar: str = ""
    holds: bool = True


def machine() -> dict[str, Any]:
    """What a reader must know to judge the figures: processor, load, versions, date."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def keep(name: str, rows: Sequence[Row]) -> Path:
    """Write the result beside the earlier ones of its name; the file in git is the newest.

    Some sections alone are kept under their own names: they do not replace the whole.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{'-'.join((name, *ONLY))}.json"
    content = {"name": name, "machine": machine(), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def table(rows: Sequence[Row]) -> str:
    lines = [("claim", "figure", "peer or limit", "bar", "holds"), *map(_cells, rows)]
    claim, figure, peer, bar, _ = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(
        f"{line[0]:<{claim}} {line[1]:>{figure}} {line[2]:<{peer}} {line[3]:<{bar}} {line[4]}"
        for line in lines
    )


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    verdict = ("yes" if row.holds else "NO") if row.bar else "-"
    return row.claim, f"{row.figure:.4g} {row.unit}".strip(), row.peer, row.bar, verdict


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()
