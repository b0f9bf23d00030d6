"""Training, adapters and releases over JSON."""

from datetime import datetime
from typing import Any

from django.db.models import QuerySet
from ninja import Router, Schema, Status

from apps.accounts.http import SignedInRequest
from apps.common.api import PROBLEMS
from apps.projects.policies import Act, project_for
from apps.tuning import selectors, services
from apps.tuning.models import Adapter, Release, Run

router = Router()


class RunIn(Schema):
    project_id: int
    config: dict[str, Any] = {}


class RunOut(Schema):
    id: int
    project_id: int
    state: str
    phase: str
    reason: str
    message: str
    step: int
    num_steps: int
    is_nightly: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RunDetail(RunOut):
    config: dict[str, Any]
    num_train: int | None
    num_heldout: int | None
    steps: list[dict[str, Any]]
    evals: list[dict[str, Any]]
    adapter_id: int | None

    @staticmethod
    def resolve_num_train(run: Run) -> int | None:
        return run.dataset.num_train if run.dataset else None

    @staticmethod
    def resolve_num_heldout(run: Run) -> int | None:
        return run.dataset.num_heldout if run.dataset else None

    @staticmethod
    def resolve_steps(run: Run) -> list[dict[str, Any]]:
        return selectors.run_metrics(run, kind="step")

    @staticmethod
    def resolve_evals(run: Run) -> list[dict[str, Any]]:
        return selectors.run_metrics(run, kind="eval")

    @staticmethod
    def resolve_adapter_id(run: Run) -> int | None:
        return run.adapter.pk if hasattr(run, "adapter") else None


class AdapterOut(Schema):
    id: int
    project_id: int
    run_id: int
    name: str
    version: int
    sha256: str
    base_sha256: str
    gate: list[dict[str, Any]]
    gate_passed: bool
    created_at: datetime


class ReleaseOut(Schema):
    id: int
    project_id: int
    number: int
    kind: str
    label: str
    adapter_id: int | None
    created_by_id: int
    created_at: datetime


class RollbackIn(Schema):
    project_id: int


@router.get("/training/runs", response={200: list[RunOut], **PROBLEMS})
def list_runs(request: SignedInRequest, project_id: int) -> QuerySet[Run]:
    return project_for(request.user, project_id).runs.all()


@router.post("/training/runs", response={201: RunOut, **PROBLEMS})
def start_run(request: SignedInRequest, body: RunIn) -> Status[Run]:
    return Status(201, services.start_run(user=request.user, **body.dict()))


@router.get("/training/runs/{int:run_id}", response={200: RunDetail, **PROBLEMS})
def get_run(request: SignedInRequest, run_id: int) -> Run:
    return services.run_for(request.user, run_id)


@router.post("/training/runs/{int:run_id}/stop", response={200: RunOut, **PROBLEMS})
def stop_run(request: SignedInRequest, run_id: int) -> Run:
    return services.stop_run(user=request.user, run_id=run_id)


@router.post("/training/runs/{int:run_id}/resume", response={200: RunOut, **PROBLEMS})
def resume_run(request: SignedInRequest, run_id: int) -> Run:
    return services.resume_run(user=request.user, run_id=run_id)


@router.get("/adapters", response={200: list[AdapterOut], **PROBLEMS})
def list_adapters(request: SignedInRequest, project_id: int) -> QuerySet[Adapter]:
    return selectors.adapters_of(project_for(request.user, project_id))


@router.post("/adapters/{int:adapter_id}/promote", response={201: ReleaseOut, **PROBLEMS})
def promote(request: SignedInRequest, adapter_id: int) -> Status[Release]:
    return Status(201, services.promote(user=request.user, adapter_id=adapter_id))


@router.get("/releases", response={200: list[ReleaseOut], **PROBLEMS})
def list_releases(request: SignedInRequest, project_id: int) -> QuerySet[Release]:
    """Newest first: the first one is live. An empty list means that the base model is."""
    return project_for(request.user, project_id, Act.READ).releases.select_related("adapter")


@router.post("/releases/rollback", response={201: ReleaseOut, **PROBLEMS})
def roll_back(request: SignedInRequest, body: RollbackIn) -> Status[Release]:
    return Status(201, services.roll_back(user=request.user, project_id=body.project_id))
