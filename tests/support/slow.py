"""The engine of a running stack on a machine that is slow on purpose.

The model that ships writes a whole draft in half a second, too fast for a browser to reload in the middle.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.stack import Stack

PERIOD_S = 0.4
SHARE = 0.05
"""The part of each period in which the engine may work."""


@contextmanager
def slow_engine(stack: Stack) -> Iterator[None]:
    pid, is_over = _engine_of(stack), threading.Event()
    thread = threading.Thread(target=_slow_down, args=(pid, is_over))
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _slow_down(pid: int, is_over: threading.Event) -> None:
    while not is_over.is_set():
        os.kill(pid, signal.SIGSTOP)
        is_over.wait(PERIOD_S * (1 - SHARE))
        os.kill(pid, signal.SIGCONT)
        is_over.wait(PERIOD_S * SHARE)


def _engine_of(stack: Stack) -> int:
    """The process that the generation worker of this stack started for its model."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,args="], check=True, text=True, capture_output=True
    )
    parents: dict[int, int] = {}
    engines: list[int] = []
    for line in listing.stdout.splitlines():
        pid, parent, *arguments = line.split(maxsplit=2)
        parents[int(pid)] = int(parent)
        if "inference.engine.host" in " ".join(arguments):
            engines.append(int(pid))
    [engine] = [pid for pid in engines if stack.process.pid in _ancestors(pid, parents)]
    return engine


def _ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid := parents.get(pid, 0):
        yield pid
