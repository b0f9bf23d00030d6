"""The training worker around the recipe: events become rows, every failure a reason. The recipe itself
is tested in tests/inference, the whole loop in tests/journeys."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from apps.common.leases import JobState, LeaseLost
from apps.tuning import services
from apps.tuning.models import Metric, Run
from tests.support.cast import Newsroom
from tests.support.factories import a_claimed_run, approvals, let_the_lease_run_out
from workers import subprocesses, tuning

EVENTS: list[dict[str, Any]] = [
    {"event": "setup", "num_samples": 3, "num_heldout": 1, "num_steps": 2},
    {"event": "eval", "step": 0, "loss": 3.0},
    {"event": "step", "step": 1, "loss": 2.5, "learning_rate": 0.001},
    {"event": "tick"},
    {"event": "step", "step": 2, "loss": 2.0, "learning_rate": 0.0005},
    {"event": "eval", "step": 2, "loss": 2.1},
    {"event": "saved", "sha256": "a" * 64},
]


def queued(room: Newsroom) -> Run:
    approvals(room, 4)
    return services.start_run(user=room.ada.user, project_id=room.project.pk)


def test_the_events_of_the_recipe_become_progress(newsroom: Newsroom) -> None:
    run = a_claimed_run(newsroom)

    asked_to_stop = [tuning._record(run, event) for event in EVENTS]

    run.refresh_from_db()
    assert (run.phase, run.step, run.num_steps) == ("training", 2, 2)
    assert list(Metric.objects.values_list("kind", "step", "values")) == [
        ("eval", 0, {"loss": 3.0}),
        ("step", 1, {"loss": 2.5, "learning_rate": 0.001}),
        ("step", 2, {"loss": 2.0, "learning_rate": 0.0005}),
        ("eval", 2, {"loss": 2.1}),
    ]
    assert not any(asked_to_stop)


def test_any_event_tells_that_a_stop_was_asked_for(newsroom: Newsroom) -> None:
    run = a_claimed_run(newsroom)
    services.stop_run(user=newsroom.ada.user, run_id=run.pk)

    assert all(tuning._record(run, event) for event in EVENTS)


def test_without_a_folder_to_train_on_the_run_fails_and_says_so(
    newsroom: Newsroom, settings: Settings
) -> None:
    settings.GALLEY_MODEL = "fake:"
    run = queued(newsroom)

    tuning.train(run.pk)

    body = newsroom.ada.get(f"/training/runs/{run.pk}").json()
    assert (body["state"], body["reason"]) == ("failed", "no_trainable_base")
    assert "Hugging Face folder" in body["message"]
    assert body["started_at"] < body["finished_at"]


def test_a_model_folder_without_a_model_fails_with_a_sentence(
    newsroom: Newsroom, home: Path, settings: Settings
) -> None:
    base = home / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.gguf").write_bytes(b"not a GGUF")
    settings.GALLEY_MODEL = str(base)
    run = queued(newsroom)

    tuning.train(run.pk)

    run.refresh_from_db()
    assert (run.state, run.reason) == (JobState.FAILED, "model_unavailable")
    assert str(base) in run.message


def test_a_doorbell_for_nothing_does_nothing(newsroom: Newsroom) -> None:
    run = a_claimed_run(newsroom)

    tuning.train(run.pk)

    run.refresh_from_db()
    assert run.state == JobState.RUNNING


def test_an_inference_process_is_followed_to_its_end(newsroom: Newsroom, home: Path) -> None:
    run = a_claimed_run(newsroom)
    briefs, output = home / "briefs.jsonl", home / "written.jsonl"
    messages = [{"role": "user", "text": "Subject: the library"}]
    briefs.write_text(json.dumps({"id": "1", "messages": messages}) + "\n")
    arguments = ("--model-path", "fake:", "--input", str(briefs), "--output", str(output))

    returncode, _last = tuning._follow(run, "generate", *arguments)

    assert returncode == 0
    assert json.loads(output.read_text())["finish_reason"] == "end"


def test_an_inference_process_that_fails_is_told_by_its_status(newsroom: Newsroom, home: Path) -> None:
    run = a_claimed_run(newsroom)
    nowhere = str(home / "nowhere")

    returncode, last = tuning._follow(
        run, "generate", "--model-path", "fake:", "--input", nowhere, "--output", nowhere
    )

    assert returncode == 1
    with pytest.raises(tuning.RunFailed, match="writing the held-back briefs failed: status 1"):
        tuning._require_success("writing the held-back briefs", returncode, last)


def test_a_worker_that_lost_its_run_ends_the_process(
    newsroom: Newsroom, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocesses, "TICK_S", 0.05)
    run = a_claimed_run(newsroom)
    let_the_lease_run_out(run)
    services.reap_expired_runs()
    briefs = home / "briefs.jsonl"
    briefs.write_text(json.dumps({"id": "1", "messages": [{"role": "user", "text": "x"}]}) + "\n")

    with pytest.raises(LeaseLost):
        tuning._follow(
            run, "generate", "--model-path", "fake:?tokens_per_second=1", "--input", str(briefs),
            "--output", str(home / "written.jsonl"),
        )  # fmt: skip


def scripted(program: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


def test_events_come_line_by_line_with_ticks_in_the_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocesses, "TICK_S", 0.1)
    program = """if True:
        import time
        print('{"event": "setup"}', flush=True)
        time.sleep(0.5)
        print('{"event": "step"}', flush=True)
    """

    with scripted(program) as process:
        names = [event["event"] for event in subprocesses.events(process)]

    spoken = [name for name in names if name != "tick"]
    assert spoken == ["setup", "step"]
    assert names.index("step") - names.index("setup") >= 3


def test_a_process_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocesses, "TICK_S", 0.05)
    monkeypatch.setattr(subprocesses, "MAX_SILENCE_S", 0.2)

    with scripted("import time; time.sleep(60)") as process:
        events = list(subprocesses.events(process))

    assert {event["event"] for event in events} == {"tick"}
    assert process.returncode == -9
