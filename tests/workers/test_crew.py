"""The crew of a worker: it pulls until the table is empty, with or without doorbells, and comes to rest."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from django.db import OperationalError, connection
from pytest_django import Settings

from apps.common.leases import JobState
from apps.drafts import services, stream
from apps.drafts.models import Chunk, Draft, Job, Priority
from inference import Engine
from tests.support.cast import Newsroom
from tests.support.factories import MODEL, a_brief, a_queued_draft, append_words, let_the_lease_run_out
from tests.workers.conftest import OpenEngine
from workers import crew, generation, presence
from workers import engine as engines
from workers.crew import Crew, Keeper

DEADLINE_S = 60.0


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    event = threading.Event()
    monkeypatch.setattr(presence, "_stopping", event)
    return event


@pytest.fixture
def writers(stopping: threading.Event) -> Iterator[Crew]:
    """Three writers at rest, as in a worker that has just started."""
    writers = Crew(3)
    writers.start()
    yield writers
    stopping.set()
    writers.join(timeout_s=DEADLINE_S)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that take no time and no engine: these tests are about who takes which job, and when."""

    def write(job: Job) -> str:
        services.begin_writing(job=job, release_id=None, adapter_sha256="", model=MODEL)
        append_words(job, "The doors", " open.")
        services.finish_draft(job=job, finish_reason="end")
        return "end"

    monkeypatch.setattr(generation, "write", write)
    monkeypatch.setattr(engines, "warm_up", lambda: None)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not get there in time"
        time.sleep(0.02)


def queue(room: Newsroom, num_drafts: int, *, batch: bool = False) -> None:
    brief = a_brief(room)
    for _ in range(num_drafts):
        services.request_drafts(user=room.eli.user, brief_id=brief.pk, batch=batch)


def num_jobs(state: JobState) -> int:
    return Job.objects.filter(state=state).count()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
def test_one_doorbell_empties_the_table(newsroom: Newsroom, writers: Crew) -> None:
    queue(newsroom, 5)

    writers.ring()

    until(lambda: num_jobs(JobState.DONE) == 5)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
def test_without_a_doorbell_the_keeper_finds_the_work(newsroom: Newsroom, writers: Crew) -> None:
    """The broker is dead or its messages are lost: within `LOOK_S` the drafts are written all the same."""
    queue(newsroom, 5)

    Keeper(writers).look_for_work()

    until(lambda: num_jobs(JobState.DONE) == 5)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
def test_the_keeper_hands_on_what_a_dead_worker_held(newsroom: Newsroom, writers: Crew) -> None:
    a_queued_draft(newsroom)
    job = Job.objects.claim_next(worker="worker-that-died")
    assert job is not None
    let_the_lease_run_out(job)

    Keeper(writers).look_for_work()

    until(lambda: num_jobs(JobState.DONE) == 1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("quick")
def test_a_ring_while_all_look_away_is_not_lost(
    newsroom: Newsroom, writers: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row comes after a writer's last look at the table and before it sleeps."""
    write_next, has_looked, may_sleep = generation.write_next, threading.Semaphore(0), threading.Event()

    def looking_away() -> str | None:
        outcome = write_next()
        has_looked.release()
        may_sleep.wait(DEADLINE_S)
        return outcome

    monkeypatch.setattr(generation, "write_next", looking_away)
    writers.ring(everybody=True)
    for _ in range(3):
        assert has_looked.acquire(timeout=DEADLINE_S)
    queue(newsroom, 1)
    writers.ring()
    may_sleep.set()

    until(lambda: num_jobs(JobState.DONE) == 1)


@pytest.mark.django_db(transaction=True)
def test_a_stop_hands_everything_back_and_takes_nothing(
    newsroom: Newsroom, open_engine: OpenEngine, writers: Crew, stopping: threading.Event
) -> None:
    open_engine(tokens_per_second=50, num_tokens=2000)
    queue(newsroom, 5)
    writers.ring(everybody=True)
    until(lambda: Draft.objects.filter(last_seq__gte=1).count() == 3)

    stopping.set()
    Keeper(writers).look()
    writers.join(timeout_s=DEADLINE_S)

    assert num_jobs(JobState.QUEUED) == 5
    assert not Job.objects.exclude(attempt=0, deaths=0).exists()


# --- which job a writer may take -----------------------------------------------------------------


def take() -> Job | None:
    return generation._claim()


@pytest.fixture
def empty_handed() -> Iterator[None]:
    yield
    generation._held.clear()


@pytest.mark.usefixtures("empty_handed")
def test_a_quarter_of_the_slots_stays_free_of_batches(newsroom: Newsroom, settings: Settings) -> None:
    settings.GALLEY_MAX_SEQUENCES = 4
    queue(newsroom, 5, batch=True)

    batch = [take(), take(), take()]

    assert [job and job.priority for job in batch] == [Priority.BATCH] * 3
    assert take() is None
    queue(newsroom, 1)
    person = take()
    assert person is not None
    assert person.priority == Priority.INTERACTIVE


@pytest.mark.usefixtures("empty_handed")
def test_suspects_are_written_one_at_a_time(newsroom: Newsroom) -> None:
    queue(newsroom, 4)
    first, second = Job.objects.order_by("turn")[:2]
    Job.objects.filter(pk__in=[first.pk, second.pk]).update(deaths=1)

    taken = [take(), take(), take(), take()]

    assert [job and job.deaths for job in taken] == [1, 0, 0, None]
    del generation._held[generation.request_id(taken[0] or first)]
    assert take() == second


# --- what goes wrong around it -------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_one_poisonous_draft_ends_alone(newsroom: Newsroom, open_engine: OpenEngine, writers: Crew) -> None:
    """It kills every engine that writes it, and those beside it come through."""
    engine = open_engine(tokens_per_second=100, num_tokens=60)
    queue(newsroom, 8)
    poison = Job.objects.order_by("turn")[2]

    with killing_whatever_writes(poison, engine):
        writers.ring(everybody=True)
        until(lambda: not Job.objects.filter(state__in=(JobState.QUEUED, JobState.RUNNING)).exists())

    assert list(Job.objects.filter(state=JobState.FAILED).values_list("pk", "reason", "deaths")) == [
        (poison.pk, "poison", 2)
    ]
    assert num_jobs(JobState.DONE) == 7


@contextmanager
def killing_whatever_writes(poison: Job, engine: Engine) -> Iterator[None]:
    """SIGKILL the engine whenever it has written a little more of the poison."""
    ended = threading.Event()

    def kill() -> None:
        num_seen = 0
        while not ended.wait(0.005):
            num_chunks = Chunk.objects.filter(draft=poison.draft_id).count()
            pid = engine.stats().pid
            if num_chunks > num_seen and pid is not None:
                os.kill(pid, signal.SIGKILL)
                num_seen = num_chunks
        connection.close()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.django_db(transaction=True)
def test_the_database_goes_away_in_mid_draft(
    newsroom: Newsroom, open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is handed back once it answers again: no attempt is used up, and the text goes on."""
    open_engine(tokens_per_second=100, num_tokens=40)
    draft = a_queued_draft(newsroom)
    append, hand_back, outages = stream.append, services.hand_back, [OperationalError("gone")] * 2

    def append_until_outage(**chunk: object) -> None:
        append(**chunk)  # type: ignore[arg-type]
        if len(outages) == 2:
            raise outages.pop()

    def hand_back_after_outage(**facts: object) -> None:
        if outages:
            raise outages.pop()
        hand_back(**facts)  # type: ignore[arg-type]

    monkeypatch.setattr(stream, "append", append_until_outage)
    monkeypatch.setattr(services, "hand_back", hand_back_after_outage)

    assert generation.write_next() == "database gone, handed back"

    job = Job.objects.get(draft=draft)
    assert (job.state, job.attempt, job.deaths) == (JobState.QUEUED, 0, 0)
    assert generation.held_jobs() == []
    assert generation.write_next() == "end"
    draft.refresh_from_db()
    assert (draft.state, draft.num_tokens) == ("ready", 40)


def test_the_doorbell_of_a_process_without_writers_is_harmless(newsroom: Newsroom) -> None:
    draft = a_queued_draft(newsroom)

    crew.write_drafts(draft.job.pk)

    assert Job.objects.get(draft=draft).state == JobState.QUEUED
