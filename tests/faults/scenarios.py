"""Process deaths, T-K1 to T-K10 of the fault plan: each scenario takes its number of trials and counts.

A trial returns the seconds after which each text that was hit went on.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from apps.common.faults import POINTS
from tests.faults.house import SERVERS, wait_until
from tests.faults.stage import Stage, Tally, scaled
from tests.faults.viewers import Client, Viewer

DRAFTS = 4
MAX_SHARE_OF_503 = 0.001
Recoveries = Iterable[float | None]
IN_THE_WEB = {"before_doorbell"}


def _repeat(stage: Stage, tally: Tally, trials: int, trial: Callable[[Stage], Recoveries]) -> Tally:
    for _ in range(trials):
        tally.recovered(*trial(stage))
    stage.verify(tally)
    return tally


def _recovered(hit: Sequence[Viewer], fault_at: float) -> Recoveries:
    return [viewer.recovered_after_s(fault_at) for viewer in hit]


# --- workers -----------------------------------------------------------------------------------


def worker_killed(stage: Stage, trials: int) -> Tally:
    """T-K1: the worker's main process dies at a random token; another goes on after the last one."""
    return _repeat(stage, Tally("T-K1 worker killed", limit_s=scaled(45)), trials, _kill_a_worker)


def _kill_a_worker(stage: Stage) -> Recoveries:
    watching = stage.play(DRAFTS)
    stage.wait_for_token(watching)
    victim, hit = stage.a_busy_worker(watching)
    fault_at = stage.house.kill(victim)
    stage.house.spawn(victim)
    stage.audience.wait()
    stage.house.wait_ready(victim)
    return _recovered(hit, fault_at)


def worker_sleeps_past_its_lease(stage: Stage, trials: int) -> Tally:
    """T-K5: a worker stands still until others have its drafts, then wakes: nothing that it writes counts.

    Stopped between two statements it keeps its row locks, until PostgreSQL ends the session after 30 s.
    """
    return _repeat(stage, Tally("T-K5 zombie worker", limit_s=45), trials, _let_a_worker_sleep)


def _let_a_worker_sleep(stage: Stage) -> Recoveries:
    watching = stage.play(DRAFTS)
    stage.wait_for_token(watching, share=random.uniform(0.02, 0.5))
    victim, hit = stage.a_busy_worker(watching)
    fault_at = time.monotonic()
    stage.house.send(victim, signal.SIGSTOP)
    try:
        wait_until(
            lambda: not stage.held_by(victim, hit),
            deadline_s=60,
            what="others have the drafts of the sleeping worker",
        )
        time.sleep(random.uniform(0, 1))
    finally:
        stage.house.send(victim, signal.SIGCONT)
    stage.audience.wait()
    return _recovered(hit, fault_at)


def worker_terminated(stage: Stage, trials: int) -> Tally:
    """T-K6: SIGTERM with 20 streams: a stop at a token boundary within 10 s, others go on within 2 s."""
    return _repeat(stage, Tally("T-K6 worker deployed", limit_s=2), trials, _deploy_a_worker)


def _deploy_a_worker(stage: Stage) -> Recoveries:
    watching = stage.play(20)
    stage.wait_all_begun(watching)
    victim, hit = stage.a_busy_worker(watching)
    fault_at = time.monotonic()
    took_s = stage.house.terminate(victim)
    assert took_s < 10, f"the worker needed {took_s:.1f} s to end"
    stage.house.spawn(victim)
    stage.audience.wait()
    stage.house.wait_ready(victim)
    return _recovered(hit, fault_at)


def killed_at_fault_points(stage: Stage, trials: int) -> Tally:
    """T-K4: a worker dies exactly between two acts; whatever it held is finished by another."""
    tally = Tally("T-K4 killed at each fault point", limit_s=scaled(45))
    for _ in range(trials):
        for point in sorted(POINTS - IN_THE_WEB):
            tally.recovered(*_die_at(stage, point))
    stage.house.start(stage.house.workers[0])
    stage.verify(tally)
    return tally


def _die_at(stage: Stage, point: str) -> Recoveries:
    """The other workers rest until it has happened, so that the one with the fault gets the drafts."""
    victim, *others = stage.house.workers
    stage.house.wait_idle()
    for name in others:
        stage.house.send(name, signal.SIGSTOP)
    try:
        if stage.house.is_running(victim):
            stage.house.terminate(victim)
        stage.house.start(victim, FAULT=f"{point}:kill", GALLEY_FAULTS_ALLOWED="1")
        watching = stage.play(2)
        if point == "before_hand_back_commit":
            stage.wait_for_token(watching, share=0.1)
            os.kill(stage.house.engine(victim), signal.SIGKILL)
        wait_until(lambda: not stage.house.is_running(victim), deadline_s=60, what=f"{point} is reached")
        fault_at = time.monotonic()
    finally:
        for name in others:
            stage.house.send(name, signal.SIGCONT)
    stage.audience.wait()
    return _recovered(watching, fault_at)


# --- engines -----------------------------------------------------------------------------------


def engine_killed(stage: Stage, trials: int) -> Tally:
    """T-K2: the engine process dies at a random token; its worker notices and hands back at once."""
    return _repeat(stage, Tally("T-K2 engine killed", limit_s=15), trials, _kill_an_engine)


def _kill_an_engine(stage: Stage) -> Recoveries:
    watching = stage.play(DRAFTS)
    stage.wait_for_token(watching)
    victim, hit = stage.a_busy_worker(watching)
    fault_at = time.monotonic()
    os.kill(stage.house.engine(victim), signal.SIGKILL)
    stage.audience.wait()
    return _recovered(hit, fault_at)


def engine_crashes_twice(stage: Stage, trials: int) -> Tally:
    """T-K3: a draft under which two engines crash fails as poison; the next is written, no worker dies."""
    before = [stage.house.pid(name) for name in stage.house.workers]
    tally = Tally("T-K3 two engines crash under one draft", limit_s=15)
    _repeat(stage, tally, trials, _crash_twice)
    assert before == [stage.house.pid(name) for name in stage.house.workers], "a worker died with its engine"
    return tally


def _crash_twice(stage: Stage) -> Recoveries:
    [poisoned] = stage.play(1)
    for deaths, crash in enumerate(random.sample((signal.SIGSEGV, signal.SIGABRT), 2), start=1):
        stage.wait_for_more(poisoned)
        victim, _hit = stage.a_busy_worker([poisoned])
        fault_at = time.monotonic()
        os.kill(stage.house.engine(victim), crash)
        stage.wait_for_deaths(poisoned, deaths)
    following = stage.play(1)
    stage.audience.wait()
    [job] = stage.house.query("SELECT state, reason FROM drafts_job WHERE draft_id = %s", poisoned.draft_id)
    assert job == ("failed", "poison")
    return _recovered(following, fault_at)


# --- the web and everything --------------------------------------------------------------------


def web_killed(stage: Stage, trials: int) -> Tally:
    """T-K7: the web server dies with 100 sockets open; all come back with their cursor."""
    return _repeat(stage, Tally("T-K7 web killed with 100 sockets", limit_s=10), trials, _kill_the_web)


def _kill_the_web(stage: Stage) -> Recoveries:
    watching = stage.play(10, viewers=10)
    stage.wait_all_begun(watching)
    fault_at = stage.house.kill("web")
    stage.house.start("web")
    stage.audience.wait()
    return _recovered(watching, fault_at)


def rolling_restart(stage: Stage, trials: int) -> Tally:
    """T-K8: web and workers are deployed in turn while people ask for drafts: no error reaches them."""
    tally = Tally("T-K8 rolling restart under load", limit_s=10)
    watching: list[Viewer] = []
    is_over = threading.Event()

    def load() -> None:
        while not is_over.wait(0.5):
            watching.extend(stage.play(1))

    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load)
        try:
            for _ in range(trials):
                _restart_in_turn(stage)
        finally:
            is_over.set()
        loading.result()
    stage.verify(tally)
    _no_server_errors(stage.client)
    tally.trials = trials
    tally.recoveries = [viewer.longest_silence_s for viewer in watching]
    return tally


def _restart_in_turn(stage: Stage) -> None:
    for name in ("web", *stage.house.workers):
        stage.house.terminate(name)
        stage.house.start(name)


def _no_server_errors(client: Client) -> None:
    errors = [status for status in client.statuses if status >= 500]
    assert set(errors) <= {503} and not client.without_retry_after, errors
    assert len(errors) <= MAX_SHARE_OF_503 * len(client.statuses), errors


def beats_at_once(stage: Stage, trials: int) -> Tally:
    """T-K9: beat dies, and five beats ring for the same night: each project gets one."""
    hour = datetime.now(UTC).strftime("%H:%M")
    for name in stage.house.workers:
        stage.house.terminate(name)
    # No night has so many samples: in this house nobody trains, and a run would wait for ever.
    stage.house.start(*stage.house.workers, GALLEY_NIGHTLY_AT=hour, GALLEY_MIN_SAMPLES="1000000")
    tally = _repeat(stage, Tally("T-K9 beat killed, then five beats", limit_s=60), trials, _ring_five_times)
    [(most,)] = stage.house.query(
        "SELECT max(nights) FROM (SELECT count(*) AS nights FROM tuning_nightlyrun GROUP BY project_id) AS p"
    )
    tally.twice += most - 1
    return tally


def _ring_five_times(stage: Stage) -> Recoveries:
    stage.house.kill("beat")
    fault_at = time.monotonic()
    rung = stage.house.manage("shell", "-c", FIVE_RINGS)
    assert not rung.returncode, rung.stderr
    wait_until(
        lambda: bool(stage.house.query("SELECT 1 FROM tuning_nightlyrun")),
        deadline_s=60,
        what="a night begins",
    )
    recovered_after_s = time.monotonic() - fault_at
    stage.house.start("beat")
    return [recovered_after_s]


FIVE_RINGS = """
from celery import current_app
for _ in range(5):
    current_app.send_task("sweeper.nightly", queue="writing")
"""


def everything_killed(stage: Stage, trials: int) -> Tally:
    """T-K10: every process dies at once, and all start again in any order."""
    return _repeat(stage, Tally("T-K10 everything killed", limit_s=120), trials, _cut_the_power)


def _cut_the_power(stage: Stage) -> Recoveries:
    watching = stage.play(8)
    stage.wait_for_token(watching)
    fault_at = stage.house.power_cut()
    _start_in_any_order(stage)
    stage.audience.wait(deadline_s=120)
    return _recovered(watching, fault_at)


def _start_in_any_order(stage: Stage) -> None:
    """What ends because another is not up yet is started again, as the supervisor does."""
    house = stage.house
    names = random.sample(list(house.parts), len(house.parts))

    def all_up() -> bool:
        for name in names:
            if not house.is_running(name):
                house.spawn(name)
        return all(house.is_running(name) for name in names) and house.answers()

    wait_until(all_up, deadline_s=120, what="the house is up again", every_s=1.0)
    for name in (*SERVERS, *house.workers):
        house.wait_ready(name, deadline_s=120)


@dataclass(frozen=True)
class Plan:
    """How often a scenario is played in `make test`, where 0 leaves it out, and in `make test-long`."""

    play: Callable[[Stage, int], Tally]
    quick: int
    long: int

    @property
    def name(self) -> str:
        return self.play.__name__


PLANS = (
    Plan(worker_killed, 2, 300),
    Plan(engine_killed, 2, 300),
    Plan(engine_crashes_twice, 1, 50),
    Plan(killed_at_fault_points, 0, 5),
    Plan(worker_sleeps_past_its_lease, 0, 50),
    Plan(worker_terminated, 1, 20),
    Plan(web_killed, 1, 50),
    Plan(rolling_restart, 0, 10),
    Plan(beats_at_once, 0, 10),
    Plan(everything_killed, 1, 20),
)
