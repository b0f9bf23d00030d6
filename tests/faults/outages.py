"""Redis and PostgreSQL faults, T-D and T-G of the fault plan: each takes its number of trials and counts."""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any, cast

import httpx
import psycopg
import redis

from tests.faults.house import NUM_TOKENS, House, wait_until
from tests.faults.scenarios import Plan
from tests.faults.stage import Stage, Tally
from tests.faults.viewers import Viewer

REDIS_AWAY_S = 5.0
LOCK_TIMEOUT_S = 2.0
"""As the settings have it. Of several who want one row the first waits for it, and the next for the first:
whoever comes late may wait twice."""
SLOWEST_REFUSAL_S = 3.0
"""A request that needs a connection waits 1 s for one, and for its turn on a machine that is busy."""
HINT_GAP_S = 0.5
"""A stream with hints is never silent for half of the second after which readers look by themselves."""
QUEUE = "writing"
TEXTS_PER_SECOND = 5
"""What the workers of the house write at least when all of their places are taken."""


# --- people during an outage -------------------------------------------------------------------


@dataclass
class Visits:
    """What somebody who is signed in got from a page, over and over: (moment, status, seconds)."""

    answers: list[tuple[float, int, float]] = field(default_factory=list)

    def of(self, status: int) -> list[float]:
        return [seconds for _at, got, seconds in self.answers if got == status]

    @property
    def statuses(self) -> set[int]:
        return {status for _at, status, _seconds in self.answers}

    @property
    def slowest_s(self) -> float:
        return max(seconds for _at, _status, seconds in self.answers)

    def recovered_after_s(self, moment: float) -> float:
        """From the moment to the first page that came as it should."""
        return next(at for at, status, _seconds in self.answers if at > moment and status == 200) - moment


@contextmanager
def visits(stage: Stage, *, every_s: float = 0.1) -> Iterator[Visits]:
    """A person with a session looks at their projects until the block ends."""
    seen, is_over, session = Visits(), threading.Event(), cookie(stage.house)

    def visit() -> None:
        with httpx.Client(base_url=stage.house.url, cookies=session, timeout=20.0) as http:
            while not is_over.wait(every_s):
                began = time.monotonic()
                status = http.get("/").status_code
                seen.answers.append((time.monotonic(), status, time.monotonic() - began))

    with ThreadPoolExecutor(1) as pool:
        visiting = pool.submit(visit)
        try:
            yield seen
        finally:
            is_over.set()
        visiting.result()


# Pages need the manifest of the static files, but not, as `make up` makes them, each of them compressed.
SIGN_IN = """
from django.conf import settings
from django.core.management import call_command
from django.test import Client, override_settings
from apps.accounts.models import User
plain = {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}
with override_settings(STORAGES=settings.STORAGES | {"staticfiles": plain}):
    call_command("collectstatic", interactive=False, verbosity=0)
client = Client()
client.force_login(User.objects.get(username="ada"))
print(settings.SESSION_COOKIE_NAME, client.cookies[settings.SESSION_COOKIE_NAME].value)
"""


def cookie(house: House) -> dict[str, str]:
    """The session of somebody who has signed in before anything broke."""
    if not (known := _cookies.get(house.url)):
        done = house.manage("shell", "-c", SIGN_IN)
        assert not done.returncode, done.stderr
        name, key = done.stdout.splitlines()[-1].split()
        known = _cookies[house.url] = {name: key}
    return known


_cookies: dict[str, dict[str, str]] = {}


def call(stage: Stage, method: str, path: str, token: str, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.request(method, f"{stage.house.url}/api/v1{path}", json=body, headers=headers, timeout=30.0)


def submitted(stage: Stage, num_drafts: int) -> list[dict[str, Any]]:
    """Texts that wait for somebody's decision."""
    watching = stage.play(num_drafts)
    stage.audience.wait()
    reviews = []
    for viewer in watching:
        answer = call(stage, "POST", f"/drafts/{viewer.draft_id}/submit", viewer.token)
        assert answer.status_code == 201, answer.text
        reviews.append(answer.json())
    return reviews


def approve(stage: Stage, review: dict[str, Any]) -> httpx.Response:
    """Whoever approves is an admin of the project and no author."""
    admin = cast(str, stage.client.people["admin"])
    return call(
        *(stage, "POST", f"/reviews/{review['id']}/decision", admin),
        decision="approve",
        content_sha256=review["content_sha256"],
    )


@contextmanager
def new_drafts(stage: Stage, *, every_s: float = 0.5) -> Iterator[list[Viewer]]:
    """People who ask for a draft every moment, and watch it, until the block ends."""
    watching: list[Viewer] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.wait(every_s):
            watching.extend(stage.play(1))

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield watching
        finally:
            is_over.set()
        asking.result()


def gaps(watching: Iterable[Viewer], *, since: float = 0.0, until: float = float("inf")) -> list[float]:
    """The silences between one frame and the next that began in this time."""
    return [
        later - earlier
        for viewer in watching
        for earlier, later in pairwise(viewer.shown_at)
        if since <= earlier <= until
    ]


def not_once(stage: Stage, draft_ids: Sequence[int]) -> int:
    """How many of these were not written from their beginning to their end, once.

    On a machine that has too much to do a lease of the house's length runs out now and then, and the job is
    claimed again; a message that counted would make all of them do so.
    """
    rows = stage.house.query(
        "SELECT j.fence, j.state, d.generated_text FROM drafts_job j JOIN drafts_draft d ON d.id = j.draft_id"
        " WHERE d.id = ANY(%s)",
        list(draft_ids),
    )
    assert len(rows) == len(draft_ids)
    again = sum(fence > 1 for fence, _state, _text in rows)
    assert again <= max(2, len(rows) // 3), f"{again} of {len(rows)} jobs were claimed again"
    return sum(state != "done" or len(text.split()) != NUM_TOKENS for _fence, state, text in rows)


# --- Redis -------------------------------------------------------------------------------------


def messages(house: House) -> redis.Redis:
    """The database with the doorbells (see settings)."""
    return redis.Redis.from_url(house.addresses["REDIS_URL"].replace("db=0", "db=1"))


def redis_killed(stage: Stage, trials: int) -> Tally:
    """T-D1: Redis dies in mid-stream and comes back after 5 s: readers poll meanwhile."""
    tally = Tally("T-D1 Redis killed for 5 s", limit_s=5)
    during: list[float] = []
    for _ in range(trials):
        streams = stage.play(4)
        stage.wait_all_begun(streams)
        with new_drafts(stage) as watching:
            killed_at = stage.house.power_cut("redis")
            time.sleep(REDIS_AWAY_S)
            back_at = time.monotonic()
            stage.house.start("redis")
            tally.recovered(_hints_are_back(watching, back_at))
        during += gaps([*streams, *watching], since=killed_at, until=back_at)
    stage.verify(tally)
    p95 = quantiles(during, n=20)[-1]
    tally.note = f"silences while Redis was away: p95 {p95:.2f} s of {len(during)}"
    assert p95 <= 2, tally.note
    return tally


def _hints_are_back(watching: list[Viewer], back_at: float) -> float:
    """Seconds until the frames of a second came as fast as they do with hints."""

    def is_fluent() -> bool:
        now = time.monotonic()
        latest = gaps(list(watching), since=max(back_at, now - 1.5), until=now - 0.5)
        return len(latest) > 5 and median(latest) < HINT_GAP_S / 2 and max(latest) < HINT_GAP_S

    wait_until(is_fluent, deadline_s=20, what="hints arrive")
    return max(0.0, time.monotonic() - 1.5 - back_at)


def queue_without_redis(stage: Stage, trials: int) -> Tally:
    """T-D2: while Redis is down people ask for drafts, look at pages and approve; all is written once."""
    tally = Tally("T-D2 queued while Redis is down", limit_s=30 + trials / TEXTS_PER_SECOND)
    reviews = submitted(stage, 5)
    stage.house.power_cut("redis")
    away_since = time.monotonic()
    with visits(stage) as seen:
        drafts = [draft_id for draft_id, _token in stage.client.write(trials)]
        assert time.monotonic() - away_since < trials, "people wait for a broker that is away"
        decided = [approve(stage, review).status_code for review in reviews]
        while trials > 100 and time.monotonic() - away_since < 60:
            time.sleep(0.1)
    assert decided == [201] * 5
    assert seen.statuses == {200}, seen.statuses
    assert set(stage.client.statuses) <= {202}, stage.client.statuses
    stage.house.start("redis")
    back_at = time.monotonic()
    stage.house.wait_idle(deadline_s=30 + trials / TEXTS_PER_SECOND)
    tally.recovered(time.monotonic() - back_at)
    tally.trials = trials
    tally.twice += not_once(stage, drafts)
    tally.note = f"slowest page {seen.slowest_s:.2f} s"
    stage.verify(tally)
    return tally


def redis_emptied(stage: Stage, trials: int) -> Tally:
    """T-D3: FLUSHALL, the file cut short, the files deleted, under load: nobody is signed out."""
    tally = Tally("T-D3 Redis emptied or its file damaged", limit_s=10)
    with visits(stage) as seen:
        for _ in range(trials):
            for empty in (_flush, _cut_its_file, _delete_its_files):
                watching = stage.play(3)
                stage.wait_for_token(watching)
                fault_at = time.monotonic()
                empty(stage.house)
                stage.audience.wait()
                tally.recovered(*[viewer.recovered_after_s(fault_at) for viewer in watching])
    assert seen.statuses == {200}, seen.statuses
    stage.verify(tally)
    return tally


def _flush(house: House) -> None:
    with messages(house) as client:
        client.flushall()


def _cut_its_file(house: House) -> None:
    house.power_cut("redis")
    [file] = _redis_files(house).glob("*.incr.aof")
    with file.open("r+b") as damaged:
        damaged.truncate(max(0, file.stat().st_size - random.randint(1, 4096)))
    house.start("redis")


def _delete_its_files(house: House) -> None:
    house.power_cut("redis")
    for file in _redis_files(house).iterdir():
        file.unlink()
    house.start("redis")


def _redis_files(house: House) -> Path:
    return house.home / "redis" / "appendonlydir"


def connections_dropped(stage: Stage, trials: int) -> Tally:
    """T-D4: every connection to Redis is cut again and again: workers take doorbells again within 10 s."""
    tally = Tally("T-D4 Redis connections dropped", limit_s=10)
    with new_drafts(stage) as watching:
        for _ in range(trials):
            _drop_connections(stage.house)
            time.sleep(random.uniform(0.5, 3))
        dropped_at = time.monotonic()
        _drop_connections(stage.house)
        tally.recovered(_doorbells_are_taken(stage.house, dropped_at), _hints_are_back(watching, dropped_at))
    tally.trials = trials
    stage.verify(tally)
    return tally


def _drop_connections(house: House) -> None:
    with messages(house) as client:
        for kind in ("normal", "pubsub"):
            client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


def _doorbells_are_taken(house: House, since: float) -> float:
    def everybody_listens() -> bool:
        with messages(house) as client:
            waiting = [one for one in client.client_list() if one["cmd"] == "brpop"]
        return len(waiting) >= len(house.workers)

    wait_until(everybody_listens, deadline_s=60, what="every worker listens for doorbells")
    return time.monotonic() - since


def messages_lost(stage: Stage, trials: int) -> Tally:
    """T-D6: each message is deleted right after it was sent: the jobs run all the same."""
    tally = Tally("T-D6 messages deleted", limit_s=20)
    with _deaf_workers(stage.house):
        drafts = [draft_id for draft_id, _token in stage.client.write(trials)]
        with messages(stage.house) as client:
            num_deleted = client.llen(QUEUE)
            client.delete(QUEUE)
        deleted_at = time.monotonic()
    assert num_deleted >= trials * 0.9, f"only {num_deleted} messages were there to be deleted"
    _wait_begun(stage, drafts)
    tally.recovered(time.monotonic() - deleted_at)
    return _count_once(stage, tally, drafts)


def _wait_begun(stage: Stage, drafts: Sequence[int]) -> None:
    """Until as many are being written as the workers have places, or all."""
    begun = "SELECT count(*) FROM drafts_draft WHERE id = ANY(%s) AND started_at IS NOT NULL"
    places = min(len(drafts), 16 * len(stage.house.workers))
    wait_until(
        lambda: stage.house.query(begun, list(drafts))[0][0] >= places, deadline_s=60, what="the jobs run"
    )


def messages_repeated(stage: Stage, trials: int) -> Tally:
    """T-D7: each message is delivered five times: each job runs once."""
    tally = Tally("T-D7 messages delivered five times", limit_s=20)
    with _deaf_workers(stage.house):
        drafts = [draft_id for draft_id, _token in stage.client.write(trials)]
        with messages(stage.house) as client:
            sent = client.lrange(QUEUE, 0, -1)
            client.lpush(QUEUE, *sent * 4)
            assert client.llen(QUEUE) >= trials * 4.5
        sent_at = time.monotonic()
    _wait_begun(stage, drafts)
    tally.recovered(time.monotonic() - sent_at)
    return _count_once(stage, tally, drafts)


def _count_once(stage: Stage, tally: Tally, drafts: Sequence[int]) -> Tally:
    stage.house.wait_idle(deadline_s=60 + len(drafts))
    tally.trials = len(drafts)
    tally.twice += not_once(stage, drafts)
    stage.verify(tally)
    return tally


@contextmanager
def _deaf_workers(house: House) -> Iterator[None]:
    """Workers stand still and have no place in Redis's line, so that what is sent stays in its list."""
    house.wait_idle()
    for name in house.workers:
        house.send(name, signal.SIGSTOP)
    try:
        _drop_connections(house)
        yield
    finally:
        for name in house.workers:
            house.send(name, signal.SIGCONT)


# --- PostgreSQL --------------------------------------------------------------------------------


def postgresql_killed(stage: Stage, trials: int) -> Tally:
    """T-G1: all of PostgreSQL dies in mid-write: what was acknowledged stays, pages say 503 and come back."""
    tally = Tally("T-G1 PostgreSQL killed", limit_s=10)
    _database_outage(stage, tally, trials, lambda house: house.power_cut("postgresql"), away_s=(1, 4))
    return tally


def postgresql_restarted(stage: Stage, trials: int) -> Tally:
    """T-G3: a fast restart, and an outage of 15 s: the web's pool comes back by itself."""
    tally = Tally("T-G3 PostgreSQL restarted, and away for 15 s", limit_s=10)
    web = stage.house.pid("web")
    for away_s in ((0, 0), (15, 15)):
        _database_outage(stage, tally, trials, lambda house: house.terminate("postgresql"), away_s=away_s)
    assert stage.house.pid("web") == web and stage.house.is_running("web")
    return tally


def _database_outage(
    stage: Stage,
    tally: Tally,
    trials: int,
    end: Callable[[House], object],
    *,
    away_s: tuple[float, float],
) -> None:
    refusals: list[float] = []
    for _ in range(trials):
        with visits(stage) as seen:
            watching = stage.play(4)
            stage.wait_for_token(watching)
            with new_drafts(stage, every_s=0.1):
                time.sleep(random.uniform(0, 0.5))
                end(stage.house)
                time.sleep(random.uniform(*away_s))
                stage.house.start("postgresql")
                back_at = time.monotonic()
                time.sleep(2)
            stage.audience.wait()
        tally.recovered(seen.recovered_after_s(back_at))
        assert seen.statuses <= {200, 503}, seen.statuses
        refusals += seen.of(503)
    stage.verify(tally)
    assert 500 not in stage.client.statuses
    assert not stage.client.without_retry_after
    tally.note = f"{len(refusals)} refusals, the slowest after {max(refusals, default=0):.2f} s"
    assert max(refusals, default=0) < SLOWEST_REFUSAL_S, tally.note


def killed_while_it_commits(stage: Stage, trials: int) -> Tally:
    """T-G2: PostgreSQL dies around the commit of an approval; sent again, there is one decision."""
    tally = Tally("T-G2 PostgreSQL killed at an approval", limit_s=10)
    outcomes: list[str] = []
    calm, *reviews = submitted(stage, trials + 1)
    began = time.monotonic()
    assert approve(stage, calm).status_code == 201
    took_s = time.monotonic() - began
    for review in reviews:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(approve, stage, review)
            time.sleep(took_s * random.uniform(0.3, 1.2))
            stage.house.power_cut("postgresql")
            outcomes.append(_outcome(first.result()))
        stage.house.start("postgresql")
        back_at = time.monotonic()
        outcomes.append(_approve_until_decided(stage, review))
        tally.recovered(time.monotonic() - back_at)
        [(decisions,)] = stage.house.query(
            "SELECT count(*) FROM reviews_decision WHERE review_id = %s", review["id"]
        )
        tally.lost += decisions < 1
        tally.twice += decisions > 1
    stage.verify(tally)
    tally.note = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in sorted(set(outcomes)))
    return tally


def _outcome(answer: httpx.Response) -> str:
    assert answer.status_code in (201, 409, 503), answer.text
    return "created" if answer.status_code == 201 else str(answer.json()["reason"])


def _approve_until_decided(stage: Stage, review: dict[str, Any]) -> str:
    for _ in range(100):
        if (outcome := _outcome(approve(stage, review))) in ("created", "already_decided"):
            return outcome
        time.sleep(0.1)
    raise AssertionError("the approval never came through")


def row_held(stage: Stage, trials: int) -> Tally:
    """T-G5: a stray transaction holds a draft's row: who needs it is refused soon, nobody else waits."""
    tally = Tally("T-G5 a stray transaction holds a row", limit_s=2 * LOCK_TIMEOUT_S + 1)
    [viewer] = stage.play(1)
    stage.audience.wait()
    for _ in range(trials):
        with psycopg.connect(stage.house.addresses["DATABASE_URL"]) as stray, visits(stage) as seen:
            stray.execute("SELECT 1 FROM drafts_draft WHERE id = %s FOR UPDATE", [viewer.draft_id])
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda number: _edit(stage, viewer, f"text {number}"), range(8)))
            tally.recovered(*[answer.elapsed.total_seconds() for answer in answers])
            assert {answer.status_code for answer in answers} == {503}, [each.text for each in answers]
        assert seen.statuses == {200} and seen.slowest_s < LOCK_TIMEOUT_S, (seen.statuses, seen.slowest_s)
        assert _edit(stage, viewer, viewer.text).status_code == 200
    stage.verify(tally)
    return tally


def _edit(stage: Stage, viewer: Viewer, text: str) -> httpx.Response:
    revision = call(stage, "GET", f"/drafts/{viewer.draft_id}", viewer.token).json()["revision"]
    return call(stage, "PATCH", f"/drafts/{viewer.draft_id}", viewer.token, text=text, revision=revision)


PLANS = (
    Plan(redis_killed, 1, 10),
    Plan(queue_without_redis, 20, 500),
    Plan(redis_emptied, 0, 10),
    Plan(connections_dropped, 0, 20),
    Plan(messages_lost, 0, 1000),
    Plan(messages_repeated, 20, 500),
    Plan(postgresql_killed, 1, 20),
    Plan(postgresql_restarted, 0, 3),
    Plan(killed_while_it_commits, 2, 60),
    Plan(row_held, 1, 5),
)
