"""`python -m inference ...` as a process of its own, followed line by line."""

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, TextIO

from django.conf import settings

from galley.launcher.child import end_with_parent

TICK_S = 2.0
MAX_SILENCE_S = 600.0


def start_inference(*arguments: str) -> "subprocess.Popen[str]":
    """The command with its events on stdout; its log goes where ours goes. It ends when we end."""
    return subprocess.Popen(
        [sys.executable, "-m", "inference", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        cwd=settings.ROOT,
        preexec_fn=partial(end_with_parent, signal.SIGTERM),
    )


def events(process: "subprocess.Popen[str]") -> Iterator[dict[str, Any]]:
    """The JSON events of a process as they come, and `{"event": "tick"}` every 2 s of silence.

    A process that says nothing for ten minutes is taken for hung and killed.
    """
    lines: queue.Queue[str | None] = queue.Queue()
    assert process.stdout is not None
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    silence_s = 0.0
    while True:
        try:
            line = lines.get(timeout=TICK_S)
        except queue.Empty:
            silence_s += TICK_S
            if silence_s >= MAX_SILENCE_S:
                process.kill()
            yield {"event": "tick"}
            continue
        if line is None:
            return
        silence_s = 0.0
        yield json.loads(line)


def _read(stdout: TextIO, lines: "queue.Queue[str | None]") -> None:
    for line in stdout:
        lines.put(line)
    lines.put(None)
