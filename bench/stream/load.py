"""A thousand browsers on twenty drafts that are being written, all served by one web process."""

import asyncio
import hashlib
import os
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

from bench.form import Row
from bench.stream.browsers import Watcher, newsroom
from tests.faults.house import House, running_house

SECONDS = float(os.environ.get("BENCH_STREAM_SECONDS", "300"))
NUM_SOCKETS, NUM_DRAFTS = 1000, 20
TOKENS_PER_SECOND = 10
NUM_OPENING = 50
SAMPLE_S = 2.0
MAX_DELAY_S, MAX_DELAY_P99_S = 1.0, 3.0
MAX_KIB_PER_SOCKET = 64
MAX_SESSIONS = 20
MAX_CPU = 0.8


@dataclass
class Looks:
    """What the machine says of the house while the load runs."""

    house: House
    sessions: list[dict[str, int]] = field(default_factory=list)
    kib: list[int] = field(default_factory=list)

    def look(self) -> None:
        counted = self.house.query(
            "SELECT application_name, count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() GROUP BY 1"
        )
        self.sessions.append(dict(counted))
        self.kib.append(self.memory_kib())

    def memory_kib(self) -> int:
        for line in Path(f"/proc/{self.house.pid('web')}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise ProcessLookupError("the web server is gone")

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.house.pid('web')}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Outcome:
    watchers: list[Watcher]
    looks: Looks
    seconds_to_open: float
    kib_per_socket: float
    cpu_s: float
    seconds: float
    num_frames: int
    """Of the time that `cpu_s` was spent in."""


def measure(home: Path) -> list[Row]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    num_tokens = min(3600, int((SECONDS + 120) * TOKENS_PER_SECOND))
    model = f"fake:?tokens_per_second={TOKENS_PER_SECOND}&num_tokens={num_tokens}"
    with running_house(home, num_workers=2, GALLEY_MODEL=model, GALLEY_CONTEXT="131072") as house:
        outcome = asyncio.run(_load(house))
        return _rows(outcome, _delays(house, outcome.watchers))


async def _load(house: House) -> Outcome:
    room, looks = newsroom(house), Looks(house)
    async with room.http:
        await room.allow_long_texts()
        first = [await room.ask(number) for number in range(NUM_DRAFTS)]
        following = [asyncio.create_task(watcher.follow()) for watcher in first]
        await asyncio.gather(*(watcher.has_begun.wait() for watcher in first))
        before_kib = looks.memory_kib()
        more = [
            Watcher(house.url, first[number % NUM_DRAFTS].token, first[number % NUM_DRAFTS].draft_id)
            for number in range(NUM_SOCKETS - NUM_DRAFTS)
        ]
        began = time.monotonic()
        following += await _open(more)
        seconds_to_open = time.monotonic() - began
        cpu_s, num_frames, began = looks.cpu_s(), _num_frames([*first, *more]), time.monotonic()
        while time.monotonic() - began < SECONDS:
            await asyncio.sleep(SAMPLE_S)
            await asyncio.to_thread(looks.look)
        cpu_s, seconds = looks.cpu_s() - cpu_s, time.monotonic() - began
        num_frames = _num_frames([*first, *more]) - num_frames
        kib_per_socket = (max(looks.kib) - before_kib) / len(more)
        for watcher in first:
            await room.stop(watcher)
        await asyncio.gather(*following)
    return Outcome([*first, *more], looks, seconds_to_open, kib_per_socket, cpu_s, seconds, num_frames)


def _num_frames(watchers: Sequence[Watcher]) -> int:
    return sum(len(watcher.frames) for watcher in watchers)


async def _open(watchers: Sequence[Watcher]) -> list["asyncio.Task[None]"]:
    opening = asyncio.Semaphore(NUM_OPENING)

    async def opened(watcher: Watcher) -> asyncio.Task[None]:
        async with opening:
            task = asyncio.create_task(watcher.follow())
            await watcher.has_begun.wait()
            return task

    return list(await asyncio.gather(*map(opened, watchers)))


def _delays(house: House, watchers: Sequence[Watcher]) -> list[float]:
    """Seconds from the commit of each chunk to each browser that was there when it was committed."""
    committed: dict[int, list[float]] = {}
    statement = "SELECT draft_id, extract(epoch FROM created_at)::float FROM drafts_chunk ORDER BY seq"
    for draft_id, at in house.query(statement):
        committed.setdefault(draft_id, []).append(at)
    return [
        frame.at - at
        for watcher in watchers
        for frame in watcher.frames
        for at in committed[watcher.draft_id][frame.first - 1 : frame.last]
        if at > watcher.opened_at
    ]


def _rows(outcome: Outcome, delays: list[float]) -> list[Row]:
    watchers, looks = outcome.watchers, outcome.looks
    percentiles = quantiles(delays, n=100)
    wrong = sum(
        hashlib.sha256(watcher.text.encode()).hexdigest() != watcher.end["content_sha256"]
        for watcher in watchers
    )
    lost = sum(watcher.num_lost + watcher.num_twice for watcher in watchers) + wrong
    load = f"{NUM_SOCKETS} sockets, {NUM_DRAFTS} drafts, {SECONDS:.0f} s"
    most = max(looks.sessions, key=lambda sessions: sum(sessions.values()))
    in_web = max(sessions.get("web", 0) for sessions in looks.sessions)
    frames_per_s = outcome.num_frames / outcome.seconds
    return [
        _row(f"commit to browser, p95: {load}", percentiles[94], "s", MAX_DELAY_S),
        _row("commit to browser, p99", percentiles[98], "s", MAX_DELAY_P99_S),
        _row("commit to browser, worst", max(delays), "s"),
        _row("gaps, repeats and texts with another hash", lost, "", 0),
        _row("memory of the web server for each socket", outcome.kib_per_socket, "KiB", MAX_KIB_PER_SOCKET),
        _row("PostgreSQL sessions of the web server", in_web, "", MAX_SESSIONS),
        _row(f"PostgreSQL sessions of all, {NUM_DRAFTS} drafts being written", sum(most.values()), ""),
        _row("web server, share of one core", outcome.cpu_s / outcome.seconds, "", MAX_CPU),
        _row("frames sent", frames_per_s, "frames/s"),
        _row(
            "processor time of a frame, everything included", 1e6 * outcome.cpu_s / outcome.num_frames, "µs"
        ),
        _row(f"time to open {NUM_SOCKETS - NUM_DRAFTS} sockets", outcome.seconds_to_open, "s"),
    ]


def _row(claim: str, figure: float, unit: str, limit: float | None = None) -> Row:
    if limit is None:
        return Row(claim=claim, figure=figure, unit=unit)
    return Row(
        claim=claim, figure=figure, unit=unit, bar=f"<= {limit:g} {unit}".strip(), holds=figure <= limit
    )
