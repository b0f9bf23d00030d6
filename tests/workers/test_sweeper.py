"""What runs by the clock: lost doorbells, dead workers, the night."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import redis
from celery import current_app
from pytest_django import Settings

from apps.common.leases import ClockTimestamp, JobState
from apps.drafts.models import Job, Worker
from apps.tuning.models import NightlyRun, Run
from tests.support.cast import Newsroom
from tests.support.factories import (
    a_claimed_job,
    a_claimed_run,
    a_queued_draft,
    approvals,
    let_the_lease_run_out,
)
from workers import sweeper


@pytest.fixture
def queues() -> Iterator[redis.Redis]:
    with current_app.connection_for_write() as connection:
        client: redis.Redis = connection.default_channel.client
        client.delete("writing", "training")
        yield client
        client.delete("writing", "training")


def rings(queues: redis.Redis) -> tuple[object, object]:
    return queues.llen("writing"), queues.llen("training")


def test_a_fresh_job_is_left_to_its_own_doorbell(newsroom: Newsroom, queues: redis.Redis) -> None:
    a_queued_draft(newsroom)

    sweeper.sweep()

    assert rings(queues) == (0, 0)


def test_work_that_waits_too_long_is_rung_for_again(newsroom: Newsroom, queues: redis.Redis) -> None:
    a_queued_draft(newsroom)
    Run.objects.create(project=newsroom.project)
    long_ago = ClockTimestamp() - timedelta(seconds=11)
    Job.objects.update(run_at=long_ago)
    Run.objects.update(run_at=long_ago)

    sweeper.sweep()

    assert rings(queues) == (1, 1)


def test_the_work_of_dead_workers_is_handed_on(newsroom: Newsroom, queues: redis.Redis) -> None:
    job, run = a_claimed_job(newsroom), a_claimed_run(newsroom)
    let_the_lease_run_out(job)
    let_the_lease_run_out(run)

    sweeper.sweep()

    assert Job.objects.get(pk=job.pk).state == JobState.QUEUED
    assert Run.objects.get(pk=run.pk).state == JobState.QUEUED


@pytest.mark.django_db
def test_a_sweep_is_beats_sign_of_life(queues: redis.Redis) -> None:
    sweeper.sweep()

    assert Worker.objects.get().role == "beat"


@pytest.mark.parametrize(
    ("clock", "is_night"),
    [("02:29", False), ("02:30", True), ("05:00", True), ("08:29", True), ("08:30", False), ("23:59", False)],
)
def test_the_night_is_six_hours_long(settings: Settings, clock: str, is_night: bool) -> None:
    settings.GALLEY_NIGHTLY_AT = "02:30"
    now = datetime.fromisoformat(f"2026-11-23T{clock}:00").replace(tzinfo=ZoneInfo("Asia/Shanghai"))

    assert sweeper.is_night(now) is is_night


def test_each_project_has_its_night_once(newsroom: Newsroom, settings: Settings) -> None:
    settings.GALLEY_NIGHTLY_AT = datetime.now(ZoneInfo(settings.TIME_ZONE)).strftime("%H:%M")
    approvals(newsroom, 4)

    sweeper.nightly()
    sweeper.nightly()

    nights = dict(NightlyRun.objects.values_list("project__name", "skip_reason"))
    assert nights == {"The Riverside Post": "", "The Hillside Times": "no_samples"}
    assert Run.objects.count() == 1


def test_by_day_no_night_begins(newsroom: Newsroom, settings: Settings) -> None:
    later = datetime.now(ZoneInfo(settings.TIME_ZONE)) + timedelta(minutes=2)
    settings.GALLEY_NIGHTLY_AT = later.strftime("%H:%M")

    sweeper.nightly()

    assert not NightlyRun.objects.exists()
