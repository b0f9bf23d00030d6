"""Starts parts in order, starts those again that die, and ends all of them in the reverse order."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from galley.launcher import home as home_folder
from galley.launcher.child import POLL_S, Child, Part
from galley.launcher.errors import Refused
from galley.launcher.report import Report
from galley.launcher.steps import run_step

FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 30.0
STEADY_AFTER_S = 60.0  # the next death of a part that ran this long counts as its first
MAX_DEATHS_BEFORE_READY = 3
START_DEADLINE_S = 60.0  # PostgreSQL's recovery after a crash takes the longest


class StopRequested(Exception):
    """Ctrl-C or SIGTERM came. Raised where the supervisor pauses, never between two acts."""


@dataclass
class _Watched:
    child: Child
    started_at: float
    num_deaths: int = 0
    restart_at: float | None = None


class Supervisor:
    """Belongs to the main thread (see Child). `lock_fd` is the caller's lock on the home."""

    def __init__(self, home: Path, *, lock_fd: int, report: Report) -> None:
        self._home = home
        self._lock_fd = lock_fd
        self._report = report
        self._tiers: list[list[_Watched]] = []
        self._num_signals = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._num_signals += 1

    def pause(self, seconds: float = POLL_S) -> None:
        """Every wait comes through here: it revives the dead and notices that a stop is wanted."""
        if self._num_signals:
            raise StopRequested
        self._revive()
        self._report.tick()
        time.sleep(seconds)

    def start(self, *parts: Part) -> None:
        """Start these together, and come back when all of them are ready."""
        tier = [_Watched(self._spawn(part), time.monotonic()) for part in parts]
        self._tiers.append(tier)
        for part in parts:
            self.wait_for(part.name, part.ready, deadline_s=START_DEADLINE_S)

    def run_step(self, title: str, *argv: str) -> None:
        log = home_folder.log_path(self._home, "setup")
        run_step(title, *argv, report=self._report, log=log, pause=self.pause)

    def wait_for(
        self, what: str, ready: Callable[[], bool], *, deadline_s: float, every_s: float = POLL_S
    ) -> None:
        """Raises Refused where `ready` does not come true in time, or a part dies again and again."""
        give_up_at = time.monotonic() + deadline_s
        while not ready():
            for watched in self._watched():
                if watched.num_deaths >= MAX_DEATHS_BEFORE_READY:
                    raise Refused(
                        f"{watched.child.part.name} does not stay up: see the end of {watched.child.log}."
                    )
            if time.monotonic() > give_up_at:
                raise Refused(f"{what} did not come up in {deadline_s:.0f} s: see {self._home / 'logs'}.")
            self.pause(every_s)

    def watch(self) -> None:
        """Keep everything up until a stop is asked for."""
        while True:
            self.pause(0.2)

    def stop(self) -> None:
        """End all parts, the last started first; a second Ctrl-C stops waiting for them."""
        asked_before = self._num_signals
        for tier in reversed(self._tiers):
            for watched in tier:
                watched.child.ask_to_stop()
            for watched in tier:
                watched.child.wait_stopped(is_urgent=lambda: self._num_signals > asked_before)

    def _spawn(self, part: Part) -> Child:
        return Child(part, log=home_folder.log_path(self._home, part.name), lock_fd=self._lock_fd)

    def _watched(self) -> list[_Watched]:
        return [watched for tier in self._tiers for watched in tier]

    def _revive(self) -> None:
        now = time.monotonic()
        for watched in self._watched():
            if watched.restart_at is not None and now >= watched.restart_at:
                watched.child = self._spawn(watched.child.part)
                watched.started_at, watched.restart_at = now, None
            elif watched.restart_at is None and watched.child.exit_status is not None:
                self._note_death(watched, now)

    def _note_death(self, watched: _Watched, now: float) -> None:
        child = watched.child
        child.kill_group()  # its own children have nobody left to answer to
        if now - watched.started_at > STEADY_AFTER_S:
            watched.num_deaths = 0
        backoff_s = min(FIRST_BACKOFF_S * 2**watched.num_deaths, MAX_BACKOFF_S)
        watched.num_deaths += 1
        watched.restart_at = now + backoff_s
        ending = f"{child.part.name} {child.describe_end()}"
        self._report.say(f"  {ending} and starts again in {backoff_s:.0f} s; see {child.log}")
