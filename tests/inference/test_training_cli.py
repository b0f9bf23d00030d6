"""`train` and `evaluate` as a worker calls them: another process, events on stdout, signals, exit status."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from inference.training.recipe import run_sft
from tests.support.tiny_hf import write_run, write_tiny_hf

LONG: dict[str, Any] = {"rank": 4, "num_epochs": 40, "checkpoint_steps": 5}  # 80 steps, about 2 s


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_hf(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def control_weights(model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return finish(write_run(tmp_path_factory.mktemp("control") / "run", model, **LONG))


def finish(folder: Path) -> bytes:
    run_sft(folder, emit=lambda event, **fields: None)
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


@contextmanager
def started(*argv: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "inference", *argv],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def events_until(process: subprocess.Popen[str], event: str) -> list[dict[str, Any]]:
    assert process.stdout is not None
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == event:
            break
    return events


def test_sigterm_seals_a_checkpoint_and_the_next_run_gives_the_same_weights(
    tmp_path: Path, model: Path, control_weights: bytes
) -> None:
    run = write_run(tmp_path / "run", model, **LONG)
    with started("train", str(run)) as process:
        events_until(process, "step")
        process.send_signal(signal.SIGTERM)
        *_, checkpoint, stopped = events_until(process, "stopped")
        assert process.wait(timeout=10) == 3
    assert (checkpoint["event"], stopped["event"]) == ("checkpoint", "stopped")
    assert checkpoint["step"] == stopped["step"] < 80
    assert (run / "checkpoints" / f"checkpoint-{stopped['step']}").is_dir()
    assert finish(run) == control_weights


def test_kill_9_and_the_next_run_gives_the_same_weights(
    tmp_path: Path, model: Path, control_weights: bytes
) -> None:
    run = write_run(tmp_path / "run", model, **LONG)
    with started("train", str(run)) as process:
        events_until(process, "checkpoint")
        process.kill()
        process.wait()
    assert not (run / "adapter").exists()
    assert finish(run) == control_weights


def test_a_run_whose_worker_died_ends_by_itself(tmp_path: Path, model: Path, control_weights: bytes) -> None:
    run = write_run(tmp_path / "run", model, **LONG)
    with started("train", str(run)) as process:
        events_until(process, "step")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=10) == 3
    assert not (run / "adapter").exists()
    assert finish(run) == control_weights


def test_failure_is_one_event_with_a_reason(tmp_path: Path, model: Path) -> None:
    run = write_run(tmp_path / "run", model, rank=0, seed=-1)
    with started("train", str(run)) as process:
        [failed] = events_until(process, "failed")
        assert process.wait(timeout=10) == 1
    assert failed["reason"] == "bad_config"
    assert "rank" in failed["message"] and "seed" in failed["message"]


def test_evaluate_prints_one_line(tmp_path: Path, model: Path) -> None:
    run = write_run(tmp_path / "run", model)
    (run / "config.json").write_text(json.dumps({"model_dir": str(model), "adapter_dir": None}))
    with started("evaluate", str(run)) as process:
        [evaluated] = events_until(process, "end of output")
        assert process.wait(timeout=10) == 0
    assert evaluated["event"] == "evaluated"
    assert [row["id"] for row in evaluated["per_sample"]] == ["notice-90", "notice-91"]
    assert 4 < evaluated["loss"] < 8
    assert evaluated["num_tokens"] > 20


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    with started("train", str(tmp_path / "absent")) as process:
        assert process.wait(timeout=60) == 2
