"""Acts of the school: start, stop and resume runs; freeze data; register, promote, roll back."""

import hashlib
import json
import math
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from apps.accounts.models import User
from apps.audit.services import record
from apps.common.errors import Conflict, Invalid
from apps.common.leases import LEASE, MAX_DEATHS, ClockTimestamp, JobState, require_held
from apps.common.tasks import TRAIN, ring_on_commit
from apps.projects.models import Project
from apps.projects.policies import Act, not_found, project_for, require
from apps.reviews.models import Decision
from apps.tuning import artifacts
from apps.tuning.gate import GateCheck, as_rows
from apps.tuning.models import (
    Adapter,
    Artifact,
    Dataset,
    Metric,
    NightlyRun,
    Release,
    ReleaseKind,
    Run,
    Sample,
    Split,
)
from apps.tuning.selectors import MIN_BRIEFS, live_release, usable_samples

HELD_OUT_EVERY = 4
"""Every fourth brief is held back from training, for ever, so that the gate never sees known text."""
TRAINING_OPTIONS = {
    "seed", "rank", "alpha", "dropout", "learning_rate", "warmup_ratio", "weight_decay", "max_grad_norm",
    "num_epochs", "batch_size", "gradient_accumulation", "max_tokens", "checkpoint_steps",
}  # fmt: skip
"""What an admin may choose. The recipe knows the ranges; where files are is not theirs to say."""


# --- runs, people's side -----------------------------------------------------------------------


@transaction.atomic
def start_run(*, user: User, project_id: int, config: dict[str, Any] | None = None) -> Run:
    project = project_for(user, project_id, Act.TRAIN)
    _refuse_unknown_options(config or {})
    run = _queue_run(project, created_by=user, config=config or {})
    record(actor=user, action="run.started", obj=run, project_id=project.pk)
    return run


def _refuse_unknown_options(config: dict[str, Any]) -> None:
    for name, value in config.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if name not in TRAINING_OPTIONS or not is_number:
            message = _("%(name)s is no training option, or its value is no number.") % {"name": name[:64]}
            raise Invalid("unknown_option", message, field="config")


def _queue_run(project: Project, *, created_by: User | None, config: dict[str, Any]) -> Run:
    usable = usable_samples(project)
    if not usable.is_enough:
        raise Conflict(
            "no_samples",
            _("%(num)s more approved drafts are needed, of at least %(briefs)s briefs in all.")
            % {"num": usable.num_missing, "briefs": MIN_BRIEFS},
        )
    try:
        with transaction.atomic():
            run = Run.objects.create(project=project, created_by=created_by, config=config)
    except IntegrityError as error:
        raise Conflict("run_active", _("A run of this project is under way. Wait, or stop it.")) from error
    ring_on_commit(TRAIN, row_id=run.pk)
    return run


@transaction.atomic
def stop_run(*, user: User, run_id: int) -> Run:
    """Stop at the next step and keep a checkpoint to resume from."""
    run = run_for(user, run_id, Act.TRAIN)
    run = Run.objects.select_for_update(of=("self",)).get(pk=run.pk)
    if not run.is_active:
        raise Conflict("wrong_state", _("This run has ended (%(state)s).") % {"state": run.state})
    Run.objects.filter(pk=run.pk).update(cancel_requested_at=ClockTimestamp())
    Run.objects.filter(pk=run.pk, state=JobState.QUEUED).update(
        state=JobState.CANCELLED, reason="stopped", finished_at=ClockTimestamp()
    )
    record(actor=user, action="run.stopped", obj=run, project_id=run.project_id)
    run.refresh_from_db()
    return run


@transaction.atomic
def resume_run(*, user: User, run_id: int) -> Run:
    run = run_for(user, run_id, Act.TRAIN)
    try:
        with transaction.atomic():
            resumed = Run.objects.filter(pk=run.pk, state=JobState.STOPPED).update(
                state=JobState.QUEUED,
                cancel_requested_at=None,
                reason="",
                finished_at=None,
                run_at=ClockTimestamp(),
            )
    except IntegrityError as error:
        raise Conflict("run_active", _("Another run of this project is under way.")) from error
    if not resumed:
        raise Conflict("wrong_state", _("Only a stopped run can be resumed (%s).") % run.state)
    record(actor=user, action="run.resumed", obj=run, project_id=run.project_id)
    ring_on_commit(TRAIN, row_id=run.pk)
    run.refresh_from_db()
    return run


@transaction.atomic
def start_nightly_run(*, project: Project, local_date: date) -> NightlyRun | None:
    """Tonight's run, or the reason why there is none; None when this date was seen to already."""
    night, created = NightlyRun.objects.get_or_create(project=project, local_date=local_date)
    if not created:
        return None
    try:
        with transaction.atomic():
            night.skip_reason = _reason_to_skip(project)
            if not night.skip_reason:
                night.run = _queue_run(project, created_by=None, config={})
    except Conflict as error:
        night.skip_reason = error.reason
    night.save()
    record(
        actor=None,
        action="nightly.skipped" if night.skip_reason else "nightly.started",
        obj=night,
        project_id=project.pk,
        date=local_date.isoformat(),
        reason=night.skip_reason,
    )
    return night


def _reason_to_skip(project: Project) -> str:
    """A night without a new approved text would only repeat the last one."""
    last = project.runs.filter(state=JobState.DONE, dataset__isnull=False).select_related("dataset").first()
    if last is None or last.dataset is None:
        return ""
    known = {item["decision"] for item in last.dataset.manifest["items"]}
    return "" if any(row.pk not in known for row in usable_samples(project).decisions) else "nothing_new"


def run_for(user: User, run_id: int, act: Act = Act.READ) -> Run:
    runs = Run.objects.filter(project__memberships__user=user).select_related("project", "dataset")
    run = runs.filter(pk=run_id).first()
    if run is None:
        raise not_found()
    require(user, run.project, act)
    return run


# --- runs, the worker's side -------------------------------------------------------------------


@transaction.atomic
def freeze_dataset(*, run: Run) -> Dataset:
    """The run's samples, for good: what is approved or withdrawn later does not reach this run."""
    require_held(run)
    if run.dataset:
        return run.dataset
    Project.objects.select_for_update().get(pk=run.project_id)
    decisions = usable_samples(run.project).decisions
    known = set(Sample.objects.filter(decision__in=decisions).values_list("decision_id", flat=True))
    for decision in decisions:
        if decision.pk not in known:
            _add_sample(decision, run.project)
    samples = list(
        Sample.objects.filter(decision__in=decisions)
        .select_related("decision__review__draft__brief")
        .order_by("pk")
    )
    files = {split: _write_records([s for s in samples if s.split == split]) for split in Split}
    items = [
        {
            "sample": sample.pk,
            "decision": sample.decision_id,
            "draft": sample.decision.review.draft_id,
            "text_sha256": sample.decision.text_sha256,
            "split": sample.split,
        }
        for sample in samples
    ]
    manifest = {"items": items, "files": {split: file.sha256 for split, file in files.items()}}
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    dataset, _created = Dataset.objects.get_or_create(
        project=run.project,
        sha256=digest,
        defaults={
            "manifest": manifest,
            "train_file": files[Split.TRAIN],
            "heldout_file": files[Split.HELDOUT],
            "num_train": sum(sample.split == Split.TRAIN for sample in samples),
            "num_heldout": sum(sample.split == Split.HELDOUT for sample in samples),
        },
    )
    require_held(run, dataset=dataset)
    run.refresh_from_db()
    return dataset


def _add_sample(decision: Decision, project: Project) -> None:
    """Every text of a brief lands on one side; every fourth new brief is held back."""
    brief_id = decision.review.draft.brief_id
    samples = Sample.objects.filter(project=project)
    split = samples.filter(brief_id=brief_id).values_list("split", flat=True).first()
    if split is None:
        num_briefs = samples.values("brief_id").distinct().count()
        split = Split.HELDOUT if num_briefs % HELD_OUT_EVERY == HELD_OUT_EVERY - 2 else Split.TRAIN
    Sample.objects.create(decision=decision, project=project, brief_id=brief_id, split=split)


def _write_records(samples: Sequence[Sample]) -> Artifact:
    """The samples as the recipe reads them: one JSON object a line, the prompt exactly as it was asked."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for sample in samples:
                file.write(json.dumps(_as_record(sample), ensure_ascii=False, sort_keys=True) + "\n")
        return artifacts.put(path, kind="dataset")


def _as_record(sample: Sample) -> dict[str, Any]:
    draft = sample.decision.review.draft
    return {
        "id": str(sample.decision_id),
        "messages": draft.messages,
        "completion": sample.decision.text,
        "must_say": draft.brief.must_say,
        "weight": 1.0,
    }


@transaction.atomic
def record_progress(*, run: Run, metric: dict[str, Any] | None = None, **changes: Any) -> bool:
    """Renew the lease, change the row and append a metric in one commit; True when a stop was asked for.

    `metric` holds `kind` ("step" or "eval"), `step` and the values.
    """
    require_held(run, lease_until=ClockTimestamp() + LEASE, progress_at=ClockTimestamp(), **changes)
    if metric:
        values = {name: value for name, value in metric.items() if name not in ("kind", "step")}
        row = Metric(run=run, kind=metric["kind"], step=metric["step"], values=values)
        # A resumed run tells the steps since its checkpoint again, with the same figures.
        Metric.objects.bulk_create([row], ignore_conflicts=True)
    return Run.objects.filter(pk=run.pk, cancel_requested_at__isnull=False).exists()


@transaction.atomic
def leave_run(*, run: Run) -> None:
    """The worker lets go at a sealed checkpoint: stopped if an admin asked for it, else queued again."""
    require_held(run)
    run.refresh_from_db()
    if run.cancel_requested_at:
        require_held(run, state=JobState.STOPPED, reason="stopped", phase="", finished_at=ClockTimestamp())
    else:
        require_held(run, state=JobState.QUEUED, phase="")
        ring_on_commit(TRAIN, row_id=run.pk)


@transaction.atomic
def end_run(*, run: Run, state: JobState, reason: str = "", message: str = "") -> None:
    require_held(
        run, state=state, reason=reason[:64] or state, message=message, phase="", finished_at=ClockTimestamp()
    )


@transaction.atomic
def reap_expired_runs() -> int:
    """Queue the runs of dead workers again: they resume from their newest sealed checkpoint."""
    expired = list(Run.objects.expired().select_for_update(skip_locked=True))
    for run in expired:
        deaths = run.deaths + 1
        if run.cancel_requested_at:
            changes: dict[str, Any] = {"state": JobState.STOPPED, "reason": "stopped"}
        elif deaths >= MAX_DEATHS:
            changes = {"state": JobState.FAILED, "reason": "lost", "finished_at": ClockTimestamp()}
        else:
            changes = {"state": JobState.QUEUED}
            ring_on_commit(TRAIN, row_id=run.pk)
        require_held(run, deaths=deaths, lease_until=ClockTimestamp(), **changes)
    return len(expired)


@transaction.atomic
def register_adapter(
    *, run: Run, folder: Path, sha256: str, base_sha256: str, checks: Sequence[GateCheck]
) -> Adapter:
    """Put the sealed folder into the store and write its row; the same run registers once."""
    require_held(run)
    if existing := Adapter.objects.filter(run=run).first():
        return existing
    if twin := Adapter.objects.filter(sha256=sha256).first():
        name = twin.name if twin.project_id == run.project_id else _("another project's")
        raise Conflict(
            "nothing_new",
            _("The same drafts and settings gave the same adapter again: %(name)s. Approve more first.")
            % {"name": name},
        )
    files = {path.name: artifacts.put(path, kind="adapter").sha256 for path in sorted(folder.iterdir())}
    Project.objects.select_for_update().get(pk=run.project_id)
    last = run.project.adapters.order_by("-version").values_list("version", flat=True).first() or 0
    adapter = Adapter.objects.create(
        project=run.project,
        run=run,
        version=last + 1,
        sha256=sha256,
        base_sha256=base_sha256,
        files=files,
        gate=as_rows(checks),
        gate_passed=all(check.passed for check in checks),
    )
    record(
        actor=run.created_by,
        action="adapter.registered",
        obj=adapter,
        project_id=run.project_id,
        sha256=sha256,
        gate_passed=adapter.gate_passed,
    )
    return adapter


# --- releases ----------------------------------------------------------------------------------


@transaction.atomic
def promote(*, user: User, adapter_id: int) -> Release:
    """Make an adapter live: one row. Drafts under way end with the release they began with."""
    adapter = adapter_for(user, adapter_id, Act.TRAIN)
    if not adapter.gate_passed:
        raise Conflict("gate_not_passed", _("The gate has refused this adapter; see its figures."))
    live = _lock_live(adapter.project)
    if live and live.adapter_id == adapter.pk:
        raise Conflict("already_live", _("This adapter is live already."))
    release = Release.objects.create(
        project=adapter.project,
        number=_next_number(live),
        kind=ReleaseKind.PROMOTION,
        adapter=adapter,
        previous=live,
        created_by=user,
    )
    record(
        actor=user,
        action="release.promoted",
        obj=release,
        project_id=adapter.project_id,
        adapter=adapter.name,
        sha256=adapter.sha256,
    )
    return release


@transaction.atomic
def roll_back(*, user: User, project_id: int) -> Release:
    """Bring back what was live before the last promotion that still counts: one row, nothing deleted."""
    project = project_for(user, project_id, Act.TRAIN)
    live = _lock_live(project)
    if live is None or live.adapter is None:
        raise Conflict("nothing_to_roll_back", _("The base model is live; there is nothing before it."))
    target = _effective(_effective(live).previous)
    release = Release.objects.create(
        project=project,
        number=_next_number(live),
        kind=ReleaseKind.ROLLBACK,
        adapter=target.adapter if target else None,
        restores=target,
        created_by=user,
    )
    record(actor=user, action="release.rolled_back", obj=release, project_id=project.pk, live=release.label)
    return release


def _effective(release: Release | None) -> Any:
    """The promotion that a release stands for: itself, or what it restored."""
    return release.restores if release and release.restores else release


def _lock_live(project: Project) -> Release | None:
    """The live release, with the project locked so that two admins do not flip it at once."""
    Project.objects.select_for_update().get(pk=project.pk)
    return live_release(project)


def _next_number(live: Release | None) -> int:
    return live.number + 1 if live else 1


def adapter_for(user: User, adapter_id: int, act: Act = Act.READ) -> Adapter:
    adapters = Adapter.objects.filter(project__memberships__user=user).select_related("project", "run")
    adapter = adapters.filter(pk=adapter_id).first()
    if adapter is None:
        raise not_found()
    require(user, adapter.project, act)
    return adapter
