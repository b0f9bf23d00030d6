"""One command that runs to its end while the terminal shows that it does."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from galley.launcher.child import POLL_S, Child, Part
from galley.launcher.errors import Refused
from galley.launcher.report import Report

NUM_LOG_LINES_SHOWN = 12


def run_step(
    title: str,
    *argv: str,
    report: Report,
    log: Path,
    environment: Mapping[str, str] | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Raises Refused with the end of the log where the command fails."""
    with report.step(title):
        child = Child(Part(name=title, argv=argv, environment=environment or {}), log=log)
        try:
            while child.exit_status is None:
                pause(POLL_S)
                report.tick()
        finally:
            child.kill_group()
        if child.exit_status != 0:
            raise Refused(f"That step {child.describe_end()}. The end of {log}:\n{_tail(log)}")


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-NUM_LOG_LINES_SHOWN:]
    return "\n".join(f"    {line}" for line in lines)
