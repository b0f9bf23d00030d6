"""A whole copy of Galley in which every process can be hurt and started again on its own.

Real PostgreSQL, Redis, uvicorn, beat and workers with their engine processes, as `make up` runs
them, but without the supervisor that would mend the fault before anybody has looked at it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, LiteralString

import httpx
import psycopg

from galley import embedded
from galley.launcher import home as home_folder
from galley.launcher import parts
from galley.launcher.child import Child, Part
from galley.launcher.errors import Refused
from tests.support.stack import ROOT, far_hour

NUM_TOKENS = 200
TOKENS_PER_SECOND = 100
MODEL = f"fake:?tokens_per_second={TOKENS_PER_SECOND}&num_tokens={NUM_TOKENS}"
LEASE_S = 3.0
"""Shorter than the product's 30 s, so that a trial takes seconds; limits are scaled with it."""
START_DEADLINE_S = 90.0
POLL_S = 0.02

SERVERS = ("postgresql", "redis")


class House:
    """Belongs to the main thread (see Child). `start` and `kill` take the names of `self.parts`."""

    def __init__(self, home: Path, *, num_workers: int = 2, **environment: str) -> None:
        home_folder.prepare(home)
        self.home = home
        self.listener = parts.listen(0)
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.addresses = embedded.urls(home)
        self.environment = {
            **self.addresses,
            "GALLEY_HOME": str(home),
            "PORT": str(self.port),
            "SECRET_KEY": "tests-only",
            "DJANGO_SETTINGS_MODULE": "galley.settings",
            "GALLEY_MODEL": MODEL,
            "GALLEY_LEASE_S": str(LEASE_S),
            "GALLEY_NIGHTLY_AT": far_hour(),
            **environment,
        }
        self.workers = tuple(f"writing-{number}" for number in range(1, num_workers + 1))
        self.parts: dict[str, Part] = {
            part.name: self._ours(part)
            for part in (
                embedded.postgresql(home),
                embedded.redis(home),
                parts.web(self.listener),
                parts.beat(home),
                *map(parts.writing, self.workers),
            )
        }
        self._children: dict[str, Child] = {}

    def _ours(self, part: Part) -> Part:
        return replace(part, environment={**part.environment, **self.environment})

    # --- starting and hurting ------------------------------------------------------------------

    def start(self, *names: str, **environment: str) -> None:
        """Start these together and come back when all can be used. `environment` is for this start alone."""
        for name in names:
            self.spawn(name, **environment)
        for name in names:
            self.wait_ready(name)

    def spawn(self, name: str, **environment: str) -> None:
        part = self.parts[name]
        part = replace(part, environment={**part.environment, **environment})
        self._started_at = time.time()
        self._children[name] = Child(part, log=self.log(name))

    def wait_ready(self, name: str, *, deadline_s: float = START_DEADLINE_S) -> None:
        child = self._children[name]
        wait_until(
            lambda: child.exit_status is not None or self._is_ready(name),
            deadline_s=deadline_s,
            what=f"{name} is ready",
        )
        if child.exit_status is not None:
            raise Refused(f"{name} {child.describe_end()}; {self.log(name)} says why")

    def _is_ready(self, name: str) -> bool:
        if name in SERVERS:
            return self.parts[name].ready()
        if name == "web":
            return self.answers()
        if name in self.workers:
            return self._has_reported(name)
        return True

    def answers(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/healthz", timeout=3.0).status_code < 600
        return False

    def _has_reported(self, worker: str) -> bool:
        [(reported,)] = self.query(
            "SELECT count(*) FROM drafts_worker WHERE name LIKE %s AND info ? 'model'"
            " AND seen_at > to_timestamp(%s)",
            f"{worker}@%",
            self._started_at,
        )
        return bool(reported)

    def pid(self, name: str) -> int:
        return self._children[name].pid

    def is_running(self, name: str) -> bool:
        return name in self._children and self._children[name].exit_status is None

    def send(self, name: str, number: signal.Signals) -> None:
        """To this process alone: its own children have to notice by themselves."""
        os.kill(self.pid(name), number)

    def kill(self, *names: str, number: signal.Signals = signal.SIGKILL) -> float:
        """Hurt all of them in one go; returns the moment, and comes back when they are gone."""
        at = time.monotonic()
        for name in names:
            self.send(name, number)
        for name in names:
            self._children[name].describe_end()
        return at

    def terminate(self, name: str) -> float:
        """SIGTERM as a deploy sends it; returns the seconds until the process was gone."""
        at = time.monotonic()
        self._children[name].stop()
        return time.monotonic() - at

    def power_cut(self, *names: str) -> float:
        """Kill these parts, or all, and what they have started, before any of them can react."""
        names = names or tuple(name for name in self._children if self.is_running(name))
        pids = [self.pid(name) for name in names]
        victims = [*pids, *(pid for parent in pids for pid in descendants(parent))]
        at = time.monotonic()
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for name in names:
            self._children[name].describe_end()
        return at

    def engine(self, worker: str) -> int:
        """The process that computes for this worker; waited for where the last one has just died."""
        found: list[int] = []

        def is_there() -> bool:
            pids = descendants(self.pid(worker))
            found[:] = [pid for pid in pids if b"inference.engine.host" in command(pid)]
            return bool(found)

        wait_until(is_there, deadline_s=30, what=f"{worker} has an engine")
        return found[-1]

    def stop(self) -> None:
        for name in reversed(self.parts):
            if name in self._children:
                with suppress(ProcessLookupError):
                    self.send(name, signal.SIGCONT)
                self._children[name].stop()
        self.listener.close()

    # --- looking -------------------------------------------------------------------------------

    def log(self, name: str) -> Path:
        return home_folder.log_path(self.home, name)

    def logs(self) -> list[Path]:
        return sorted((self.home / "logs").glob("*.log"))

    def query(self, statement: LiteralString, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.addresses["DATABASE_URL"], autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def holder(self, draft_id: int) -> str:
        """The name of the worker that writes this draft, or "" while none does."""
        rows = self.query("SELECT worker FROM drafts_job WHERE draft_id = %s AND state = 'running'", draft_id)
        return next((name for (held_by,) in rows for name in self.workers if self._is(name, held_by)), "")

    def _is(self, name: str, held_by: str) -> bool:
        return self.is_running(name) and held_by.endswith(f".{self.pid(name)}")

    def wait_idle(self, *, deadline_s: float = 60.0) -> None:
        wait_until(
            lambda: not self.query("SELECT 1 FROM drafts_job WHERE state IN ('queued', 'running') LIMIT 1"),
            deadline_s=deadline_s,
            what="every job has ended",
        )

    def manage(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "manage.py", *arguments]
        return self._run(command)

    def run_module(self, name: str) -> Any:
        """The JSON that a module of the tests prints when run on this copy's database."""
        done = self._run([sys.executable, "-m", name])
        if done.returncode:
            raise AssertionError(done.stderr)
        return json.loads(done.stdout.splitlines()[-1])

    def _run(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=300)


@contextmanager
def running_house(home: Path, *, num_workers: int = 2, **environment: str) -> Iterator[House]:
    """Everything up, the tables made."""
    house = House(home, num_workers=num_workers, **environment)
    try:
        house.start(*SERVERS)
        migrated = house.manage("migrate", "--no-input")
        assert migrated.returncode == 0, migrated.stderr
        house.start("web", "beat", *house.workers)
        yield house
    finally:
        house.stop()


def wait_until(condition: Any, *, deadline_s: float, what: str, every_s: float = POLL_S) -> float:
    """Returns the seconds it took; raises AssertionError where it does not come true."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > deadline_s:
            raise AssertionError(f"not within {deadline_s:.0f} s: {what}")
        time.sleep(every_s)
    return time.monotonic() - began


def descendants(pid: int) -> list[int]:
    parents = _parents()
    found = [pid]
    for parent in found:  # grows while it is read
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _parents() -> dict[int, int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # The name of the program may hold spaces and brackets; what follows the last one is plain.
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return parents
