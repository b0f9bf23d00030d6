"""Training runs: started by an admin with enough samples, one at a time, stopped and resumed."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, transaction

from apps.common.leases import MAX_DEATHS, ClockTimestamp, JobState, LeaseLost
from apps.tuning import services
from apps.tuning.models import Metric, Run
from apps.tuning.progress import progress_of
from tests.support.cast import Answer, Newsroom, assert_refused
from tests.support.factories import (
    TEXT,
    a_brief,
    a_claimed_run,
    an_approval,
    approvals,
    let_the_lease_run_out,
)


def start(room: Newsroom, **body: Any) -> Answer:
    return room.ada.post("/training/runs", project_id=room.project.pk, **body)


def test_it_works(newsroom: Newsroom) -> None:
    approvals(newsroom, 4)

    answer = start(newsroom, config={"num_epochs": 2, "learning_rate": 0.002})

    assert answer.status_code == 201
    run = newsroom.rosa.get(f"/training/runs/{answer.json()['id']}").json()
    assert (run["state"], run["is_nightly"], run["adapter_id"]) == ("queued", False, None)
    assert run["config"] == {"num_epochs": 2, "learning_rate": 0.002}
    listed = newsroom.eli.get("/training/runs", project_id=newsroom.project.pk).json()
    assert [row["id"] for row in listed] == [run["id"]]


def test_without_samples_there_is_nothing_to_learn(newsroom: Newsroom) -> None:
    approvals(newsroom, 3)

    body = assert_refused(start(newsroom), 409, "no_samples")

    assert body["message"].startswith("1 more")
    assert not Run.objects.exists()


def test_texts_of_too_few_briefs_leave_none_to_hold_back(newsroom: Newsroom) -> None:
    brief = a_brief(newsroom)
    for number in range(5):
        an_approval(newsroom, brief=brief, text=f"{TEXT} {number}")

    assert_refused(start(newsroom), 409, "no_samples")


def test_one_run_of_a_project_at_a_time(newsroom: Newsroom) -> None:
    approvals(newsroom, 4)
    run_id = start(newsroom).json()["id"]

    assert_refused(start(newsroom), 409, "run_active")
    with pytest.raises(DatabaseError, match="one_active_run_per_project"), transaction.atomic():
        Run.objects.create(project=newsroom.project)

    newsroom.ada.post(f"/training/runs/{run_id}/stop")
    assert start(newsroom).status_code == 201


@pytest.mark.parametrize(
    "config",
    [
        {"model_dir": "/etc"},
        {"base_sha256": "0" * 64},
        {"num_threads": 256},
        {"rank": "16"},
        {"rank": True},
        {"seed": None},
        {"seed": [1]},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"a\0b": 1},
        {"\ud800": 1},
    ],
)
def test_an_option_that_is_none_is_refused(newsroom: Newsroom, config: dict[str, Any]) -> None:
    assert_refused(start(newsroom, config=config), 400, "unknown_option")
    assert not Run.objects.exists()


def test_a_waiting_run_is_cancelled_at_once(newsroom: Newsroom) -> None:
    approvals(newsroom, 4)
    run_id = start(newsroom).json()["id"]

    assert newsroom.ada.post(f"/training/runs/{run_id}/stop").json()["state"] == "cancelled"
    assert_refused(newsroom.ada.post(f"/training/runs/{run_id}/stop"), 409, "wrong_state")
    assert_refused(newsroom.ada.post(f"/training/runs/{run_id}/resume"), 409, "wrong_state")


def test_a_running_run_stops_at_its_next_step_and_goes_on_later(newsroom: Newsroom) -> None:
    run = a_claimed_run(newsroom)
    assert services.record_progress(run=run, step=3) is False

    assert newsroom.ada.post(f"/training/runs/{run.pk}/stop").json()["state"] == "running"
    assert services.record_progress(run=run, step=4) is True
    services.leave_run(run=run)
    assert newsroom.ada.get(f"/training/runs/{run.pk}").json()["state"] == "stopped"

    resumed = newsroom.ada.post(f"/training/runs/{run.pk}/resume").json()
    assert (resumed["state"], resumed["reason"], resumed["step"]) == ("queued", "", 4)
    assert_refused(newsroom.ada.post(f"/training/runs/{run.pk}/resume"), 409, "wrong_state")


def test_a_stopped_run_is_not_resumed_beside_another(newsroom: Newsroom) -> None:
    run = a_claimed_run(newsroom)
    newsroom.ada.post(f"/training/runs/{run.pk}/stop")
    services.leave_run(run=run)
    approvals(newsroom, 4)
    start(newsroom)

    assert_refused(newsroom.ada.post(f"/training/runs/{run.pk}/resume"), 409, "run_active")


def test_a_worker_that_shuts_down_gives_its_run_back(newsroom: Newsroom) -> None:
    run = a_claimed_run(newsroom)

    services.leave_run(run=run)

    run.refresh_from_db()
    assert (run.state, run.deaths) == (JobState.QUEUED, 0)


def test_progress_is_kept_as_rows_and_as_figures(newsroom: Newsroom) -> None:
    run = a_claimed_run(newsroom)

    services.record_progress(run=run, phase="training", num_steps=10)
    services.record_progress(run=run, step=1, metric={"kind": "step", "step": 1, "loss": 2.5, "epoch": 0})
    services.record_progress(run=run, metric={"kind": "eval", "step": 1, "loss": 2.4})

    body = newsroom.rosa.get(f"/training/runs/{run.pk}").json()
    assert (body["phase"], body["step"], body["num_steps"]) == ("training", 1, 10)
    assert body["steps"] == [{"step": 1, "loss": 2.5, "epoch": 0}]
    assert body["evals"] == [{"step": 1, "loss": 2.4}]


def test_a_worker_that_lost_its_run_records_nothing(newsroom: Newsroom) -> None:
    stale = a_claimed_run(newsroom)
    let_the_lease_run_out(stale)
    assert services.reap_expired_runs() == 1
    assert Run.objects.filter(pk=stale.pk).claim_next(worker="school-2") is not None

    for act in (
        lambda: services.record_progress(run=stale, step=9, metric={"kind": "step", "step": 9, "loss": 1}),
        lambda: services.end_run(run=stale, state=JobState.DONE),
        lambda: services.leave_run(run=stale),
        lambda: services.freeze_dataset(run=stale),
    ):
        with pytest.raises(LeaseLost):
            act()
    assert not Metric.objects.exists()


def test_a_run_whose_worker_dies_again_and_again_is_given_up(newsroom: Newsroom) -> None:
    run = a_claimed_run(newsroom)
    for deaths in range(1, MAX_DEATHS + 1):
        let_the_lease_run_out(run)
        services.reap_expired_runs()
        run.refresh_from_db()
        assert run.deaths == deaths
        if run.state == JobState.QUEUED:
            Run.objects.claim_next(worker="school-2")

    assert (run.state, run.reason) == (JobState.FAILED, "lost")


def test_a_run_stopped_while_its_worker_was_dead_can_be_resumed(newsroom: Newsroom) -> None:
    run = a_claimed_run(newsroom)
    newsroom.ada.post(f"/training/runs/{run.pk}/stop")
    let_the_lease_run_out(run)

    services.reap_expired_runs()

    assert newsroom.ada.post(f"/training/runs/{run.pk}/resume").json()["state"] == "queued"


def test_a_run_that_says_nothing_is_not_called_running(newsroom: Newsroom) -> None:
    run = a_claimed_run(newsroom)
    services.record_progress(run=run, phase="training")
    run.refresh_from_db()
    assert progress_of(run).state == "running"

    Run.objects.filter(pk=run.pk).update(progress_at=ClockTimestamp() - timedelta(seconds=61))
    run.refresh_from_db()

    assert progress_of(run).state == "lost"
    assert "step 0" in progress_of(run).sentence


@pytest.mark.parametrize("who", ["eli", "rosa"])
def test_only_an_admin_trains(newsroom: Newsroom, who: str) -> None:
    run, member = a_claimed_run(newsroom), getattr(newsroom, who)

    assert_refused(member.post("/training/runs", project_id=newsroom.project.pk), 403, "forbidden")
    assert_refused(member.post(f"/training/runs/{run.pk}/stop"), 403, "forbidden")
    assert_refused(member.post(f"/training/runs/{run.pk}/resume"), 403, "forbidden")


def test_a_stranger_finds_nothing(newsroom: Newsroom) -> None:
    run, mallory = a_claimed_run(newsroom), newsroom.mallory

    assert_refused(mallory.post("/training/runs", project_id=newsroom.project.pk), 404, "not_found")
    assert_refused(mallory.get("/training/runs", project_id=newsroom.project.pk), 404, "not_found")
    assert_refused(mallory.get(f"/training/runs/{run.pk}"), 404, "not_found")
    assert_refused(mallory.post(f"/training/runs/{run.pk}/stop"), 404, "not_found")


def test_a_project_that_is_no_number_is_refused(newsroom: Newsroom) -> None:
    assert_refused(newsroom.ada.send("POST", "/training/runs", json.dumps({})), 422, "invalid_input")
