"""How many threads a forward pass gets, as long as other processes want the same cores.

The threads of a pass meet at a barrier after every operation, so one that waits for a core makes
all of them wait: on 2 cores with a busy neighbour, 2 threads can be 20 times slower than 1.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_LOOK_EVERY_S = 0.25
_QUIET_S = 2.0
_TOO_MUCH_WAITING = 0.1  # seconds on a run queue per second
_IDLE_CORES_TO_GROW = 0.8


@dataclass(frozen=True)
class Counters:
    """Totals since start, in seconds: the clock, our threads' wait for a core, idle time of all cores."""

    clock: float
    waited: float
    idle: float


class ThreadGovernor:
    """Lowers the number at once when our threads have to wait, raises it after a quiet while."""

    def __init__(
        self,
        most: int,
        *,
        read: Callable[[], Counters | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.num_threads = most
        self._most = most
        self._read = read
        self._clock = clock
        self._last = self._read()
        self._crowded_at = 0.0

    def look(self) -> int:
        """Called before each pass; reads the counters a few times a second."""
        if self._last and self._clock() - self._last.clock >= _LOOK_EVERY_S:
            self._adapt(self._last, self._read())
        return self.num_threads

    def _adapt(self, before: Counters, now: Counters | None) -> None:
        self._last = now
        if now is None:
            return
        seconds = now.clock - before.clock
        has_waited = now.waited - before.waited > _TOO_MUCH_WAITING * seconds
        has_room = now.idle - before.idle > _IDLE_CORES_TO_GROW * seconds
        if has_waited:
            self.num_threads = max(1, self.num_threads - 1)
        if has_waited or not has_room:
            self._crowded_at = now.clock
        elif now.clock - self._crowded_at >= _QUIET_S:
            self.num_threads = min(self._most, self.num_threads + 1)


def read_counters() -> Counters | None:
    """From Linux's /proc; None elsewhere."""
    try:
        idle_ticks = sum(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[4:6]))
        waited = sum(_waited_ns(task) for task in Path("/proc/self/task").iterdir())
    except OSError:
        return None
    return Counters(time.monotonic(), waited / 1e9, idle_ticks / os.sysconf("SC_CLK_TCK"))


def physical_cores() -> int:
    """Cores that this process may use; two hyper-threads of one core count once."""
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len({_siblings(cpu) for cpu in cpus})


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def _waited_ns(task: Path) -> int:
    try:
        return int((task / "schedstat").read_text().split()[1])
    except FileNotFoundError:  # the thread ended between the listing and the reading
        return 0
