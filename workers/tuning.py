"""Training: freeze, train in a process of its own, measure on held-back drafts, gate, register."""

import json
import logging
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from celery import shared_task
from django.conf import settings

from apps.common.errors import GalleyError
from apps.common.leases import ClockTimestamp, JobState, LeaseLost
from apps.common.tasks import TRAIN
from apps.tuning import artifacts, services
from apps.tuning.gate import HeldOutText, Measured, judge
from apps.tuning.models import Dataset, Run
from apps.tuning.selectors import live_release
from inference import EngineError, adapters, models
from workers import presence
from workers.engine import adapter_folder
from workers.subprocesses import events, start_inference

logger = logging.getLogger(__name__)

WORKER_NAME = f"{socket.gethostname()}.{os.getpid()}"
EXIT_STOPPED = 3
MAX_DRAFT_TOKENS = 512
MAX_GATE_BRIEFS = 24

Record = dict[str, Any]


class RunFailed(Exception):
    """The run cannot go on; `reason` is for programs, the message for the admin."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Left(Exception):
    """The training process has stopped at a sealed checkpoint, as it was asked to."""


@shared_task(name=TRAIN, ignore_result=True)
def train(run_id: int) -> None:
    """Doorbell: train the next queued run."""
    run = Run.objects.claim_next(worker=WORKER_NAME)
    if run is None:
        return
    try:
        _train(run)
        services.end_run(run=run, state=JobState.DONE)
    except LeaseLost as error:
        logger.warning("%s", error)
    except Left:
        services.leave_run(run=run)
    except (RunFailed, GalleyError, EngineError) as error:
        _fail(run, error.reason, str(error))
    except OSError as error:
        _fail(run, "os_error", str(error))


def _fail(run: Run, reason: str, message: str) -> None:
    logger.warning("run %s failed: %s: %s", run.pk, reason, message)
    services.end_run(run=run, state=JobState.FAILED, reason=reason, message=message)


def _train(run: Run) -> None:
    services.record_progress(run=run, phase="preparing")
    Run.objects.filter(pk=run.pk, started_at=None).update(started_at=ClockTimestamp())
    base = trainable_base()
    dataset = services.freeze_dataset(run=run)
    folder = Path(settings.HOME) / "runs" / f"{run.pk}-{dataset.sha256[:12]}"
    adapter = folder / "adapter"
    if not adapter.exists():
        _prepare(run, dataset, base, folder)
        _run_recipe(run, folder)
    services.record_progress(run=run, phase="gate")
    manifest = adapters.check(adapter)
    checks = judge(
        candidate=_measure(run, folder / "candidate", base, adapter),
        live=_measure(run, folder / "live", base, _live_adapter(run)),
    )
    services.register_adapter(
        run=run, folder=adapter, sha256=manifest.sha256, base_sha256=manifest.base_sha256, checks=checks
    )
    shutil.rmtree(folder, ignore_errors=True)


def trainable_base() -> Path:
    """The Hugging Face folder that adapters are trained on. Raises RunFailed where there is none."""
    path = Path(settings.GALLEY_MODEL).expanduser()
    if (path / "config.json").is_file():
        return path
    raise RunFailed(
        "no_trainable_base",
        "Training needs the model as a Hugging Face folder, and the one in use is something else: "
        "`manage.py model list` tells which can be trained.",
    )


def _prepare(run: Run, dataset: Dataset, base: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    artifacts.fetch(dataset.train_file_id, folder / "train.jsonl")
    artifacts.fetch(dataset.heldout_file_id, folder / "heldout.jsonl")
    config = {
        **run.config,
        "model_dir": str(base),
        # An adapter is bound to the very file that drafts are written with.
        "base_sha256": _running_model().sha256,
        "num_threads": settings.GALLEY_TRAINING_THREADS,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True))


def _run_recipe(run: Run, folder: Path) -> None:
    """Train, turning each event into the run's progress; asked to stop, the recipe seals a checkpoint."""
    returncode, last = _follow(run, "train", str(folder))
    if last["event"] == "failed":
        raise RunFailed(last["reason"], last["message"])
    if returncode == EXIT_STOPPED:
        raise Left
    if returncode:
        raise RunFailed("training_died", f"The training process ended with status {returncode}.")


def _follow(run: Run, *arguments: str) -> tuple[int, Record]:
    """Follow an inference process to its end: exit status and last event. It ends with our lease."""
    last: Record = {"event": "none"}
    with start_inference(*arguments) as process:
        try:
            for event in events(process):
                if event["event"] != "tick":
                    last = event
                if _record(run, event) or presence.is_stopping():
                    process.terminate()
            process.wait()
        finally:
            process.kill()  # whatever went wrong here, nobody would follow it any more
    return process.returncode, last


def _record(run: Run, event: Record) -> bool:
    """Write one event of the recipe to the run; True when a stop was asked for."""
    if event["event"] == "setup":
        return services.record_progress(run=run, phase="training", num_steps=event["num_steps"])
    if event["event"] == "step":
        metric = _metric("step", event)
        return services.record_progress(run=run, metric=metric, step=event["step"])
    if event["event"] == "eval":
        return services.record_progress(run=run, metric=_metric("eval", event))
    return services.record_progress(run=run)


def _metric(kind: str, event: Record) -> Record:
    return {"kind": kind} | {name: value for name, value in event.items() if name != "event"}


def _live_adapter(run: Run) -> Path | None:
    release = live_release(run.project)
    return adapter_folder(release.adapter.sha256) if release and release.adapter else None


# --- measuring for the gate --------------------------------------------------------------------


def _measure(run: Run, side: Path, base: Path, adapter: Path | None) -> Measured:
    """Loss on the held-back approved texts, and what the model writes for their briefs greedily."""
    side.mkdir(exist_ok=True)
    records = _read(side.parent / "heldout.jsonl")[:MAX_GATE_BRIEFS]
    _write(side / "heldout.jsonl", records)
    config = {
        "model_dir": str(base),
        "adapter_dir": str(adapter) if adapter else None,
        "num_threads": settings.GALLEY_TRAINING_THREADS,
    }
    (side / "config.json").write_text(json.dumps(config))
    returncode, evaluated = _follow(run, "evaluate", str(side))
    _require_success("evaluating the held-back drafts", returncode, evaluated)
    written = {row["id"]: row for row in _generate(run, side, records, adapter)}
    texts = [
        HeldOutText(
            approved=record["completion"],
            written=written[record["id"]]["text"],
            ended=written[record["id"]]["finish_reason"] == "end",
            must_say=record["must_say"],
        )
        for record in records
    ]
    return Measured(loss=evaluated["loss"], texts=texts)


def _generate(run: Run, side: Path, records: Sequence[Record], adapter: Path | None) -> list[Record]:
    briefs, output = side / "briefs.jsonl", side / "written.jsonl"
    output.unlink(missing_ok=True)
    _write(briefs, [{"id": record["id"], "messages": record["messages"]} for record in records])
    arguments = ["--model-path", str(_running_model().path), "--input", str(briefs), "--output", str(output)]
    arguments += ["--temperature", "0", "--max-tokens", str(MAX_DRAFT_TOKENS)]
    if adapter:
        arguments += ["--adapter", str(adapter)]
    returncode, last = _follow(run, "generate", *arguments)
    _require_success("writing the held-back briefs", returncode, last)
    return _read(output)


def _require_success(what: str, returncode: int, last: Record) -> None:
    if presence.is_stopping():
        raise Left
    if returncode:
        raise RunFailed("gate_failed", f"{what} failed: {last.get('message', f'status {returncode}')}")


def _running_model() -> models.ResolvedModel:
    return models.resolve(settings.GALLEY_MODEL, Path(settings.HOME) / "cache")


def _read(path: Path) -> list[Record]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _write(path: Path, rows: Sequence[Record]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
