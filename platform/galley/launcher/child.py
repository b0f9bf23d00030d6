"""One child process: it logs to a file, ends when asked, and never outlives its parent."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from galley.launcher.errors import Refused

POLL_S = 0.05
MAX_LOG_BYTES = 10 * 1024 * 1024

_PR_SET_PDEATHSIG = 1
# Loaded here because nothing may be imported between fork and exec.
_libc = ctypes.CDLL(None)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One long-running program.

    `stop_signal` asks for an orderly end within `stop_deadline_s`; `death_signal` is what the
    kernel sends when the parent is killed. `ready` tells whether the part can be used. `fds` are
    files of ours that the program uses under the same numbers, such as a listening socket.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    stop_deadline_s: float = 10.0
    death_signal: signal.Signals = signal.SIGKILL
    ready: Callable[[], bool] = lambda: True
    fds: tuple[int, ...] = ()


class Child:
    """A part that runs. Start it from the main thread: to the kernel, the end of the thread that
    started it is the death of the parent."""

    def __init__(self, part: Part, *, log: Path, lock_fd: int | None = None) -> None:
        self.part = part
        self.log = log
        self._process = _spawn(part, log=log, lock_fd=lock_fd)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        return self._process.poll()

    def wait_until_ready(self, *, deadline_s: float, pause: Callable[[float], None] = time.sleep) -> None:
        give_up_at = time.monotonic() + deadline_s
        while not self.part.ready():
            if self.exit_status is not None:
                raise Refused(f"{self.part.name} {_ending(self.exit_status)} at once; {self.log} says why.")
            if time.monotonic() > give_up_at:
                raise Refused(f"{self.part.name} did not answer in {deadline_s:.0f} s; look into {self.log}.")
            pause(POLL_S)

    def describe_end(self) -> str:
        return _ending(self._process.wait())

    def ask_to_stop(self) -> None:
        self._process.send_signal(self.part.stop_signal)

    def stop(self) -> None:
        self.ask_to_stop()
        self.wait_stopped()

    def wait_stopped(self, *, is_urgent: Callable[[], bool] = lambda: False) -> None:
        """Wait for the end that `ask_to_stop` asked for, then kill what is left of the group."""
        give_up_at = time.monotonic() + self.part.stop_deadline_s
        while self.exit_status is None and time.monotonic() < give_up_at and not is_urgent():
            time.sleep(POLL_S)
        self.kill_group()

    def kill_group(self) -> None:
        """End the part and its own children for certain."""
        with suppress(ProcessLookupError):  # nobody is left, as it should be
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def _spawn(part: Part, *, log: Path, lock_fd: int | None = None) -> subprocess.Popen[bytes]:
    """The child inherits the lock of the home: a new start waits until the last child of a killed
    one is gone."""
    _rotate(log)
    with log.open("ab") as output:
        return subprocess.Popen(
            part.argv,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **part.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the supervisor only, which stops in order
            pass_fds=part.fds if lock_fd is None else (*part.fds, lock_fd),
            preexec_fn=_tie_to_parent(part.death_signal),
        )


def end_with_parent(death_signal: signal.Signals) -> None:
    """Ask the kernel to send us this signal when the thread that started us ends. Linux only."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))


def _tie_to_parent(death_signal: signal.Signals) -> Callable[[], None]:
    parent = os.getpid()

    def tie() -> None:
        end_with_parent(death_signal)
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)

    return tie


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".1.log"))


def _ending(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"
