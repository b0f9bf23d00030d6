"""Batches over JSON."""

from datetime import datetime
from typing import Any, Literal

from django.http import StreamingHttpResponse
from ninja import File, Form, Router, Schema, Status
from ninja.files import UploadedFile

from apps.accounts.http import SignedInRequest
from apps.batches import results, selectors, services
from apps.batches.files import table_of
from apps.batches.forms import read_upload
from apps.batches.models import Batch, BatchRow, RowState
from apps.batches.progress import progress_of
from apps.batches.services import batch_for
from apps.common.api import PROBLEMS
from apps.projects.policies import project_for

router = Router()
MAX_ROWS_PER_CALL = 500


class BatchSettings(Schema):
    """What a batch needs besides its rows."""

    name: str
    preset_id: int
    candidates: int = 1
    seed: int | None = None
    client_request_id: str = ""


class BatchIn(BatchSettings):
    """`mapping`: field of the brief -> name in the rows; without it, it is guessed."""

    rows: list[dict[str, Any]]
    mapping: dict[str, str] | None = None

    def to_input(self) -> services.BatchInput:
        return services.BatchInput(**self.dict(exclude={"rows"}))


class MappingIn(Schema):
    mapping: dict[str, str]


class BatchOut(Schema):
    """`state` is draft, open, paused, cancelled or done; `counts` are rows by their state."""

    id: int
    project_id: int
    name: str
    preset_id: int
    candidates: int
    seed: int | None
    state: str
    sentence: str
    columns: list[str]
    mapping: dict[str, str]
    counts: dict[str, int]
    num_rows: int
    num_ended: int
    rows_per_minute: float | None
    left_s: int | None
    created_at: datetime


class ProblemOut(Schema):
    field: str
    column: str
    message: str


class RowOut(Schema):
    number: int
    line: int
    fields: dict[str, str | list[str]]
    state: str
    problems: list[ProblemOut]
    error: str
    tries: int
    brief_id: int | None
    draft_ids: list[int]

    @staticmethod
    def resolve_draft_ids(row: BatchRow) -> list[int]:
        return [draft.pk for draft in row.drafts]


class RetriedOut(Schema):
    num_rows: int


def _told(batch: Batch, counts: selectors.Counts | None = None) -> dict[str, Any]:
    progress = progress_of(batch, selectors.counts(batch) if counts is None else counts)
    names = ("project_id", "name", "preset_id", "candidates", "seed", "columns", "mapping", "created_at")
    return {name: getattr(batch, name) for name in names} | {
        "id": batch.pk,
        "state": progress.state,
        "sentence": progress.sentence,
        "counts": {state: progress.counts[state] for state in RowState.values},
        "num_rows": progress.num_rows,
        "num_ended": progress.num_ended,
        "rows_per_minute": progress.rows_per_minute,
        "left_s": progress.left_s,
    }


@router.get("/projects/{int:project_id}/batches", response={200: list[BatchOut], **PROBLEMS})
def list_batches(request: SignedInRequest, project_id: int) -> list[dict[str, Any]]:
    batches = list(selectors.batches_of(project_for(request.user, project_id)))
    counts = selectors.counts_of(batches)
    return [_told(batch, counts[batch.pk]) for batch in batches]


@router.post("/projects/{int:project_id}/batches", response={201: BatchOut, **PROBLEMS})
def create_batch(request: SignedInRequest, project_id: int, body: BatchIn) -> Status[dict[str, Any]]:
    """A dry run of the rows; start it when its counts are right."""
    batch = services.create_batch(
        user=request.user, project_id=project_id, table=table_of(body.rows), batch=body.to_input()
    )
    return Status(201, _told(batch))


@router.post("/projects/{int:project_id}/batches/upload", response={201: BatchOut, **PROBLEMS})
def upload_batch(
    request: SignedInRequest, project_id: int, body: Form[BatchSettings], file: File[UploadedFile]
) -> Status[dict[str, Any]]:
    """The same from a CSV or JSON-lines file."""
    batch = services.create_batch(
        user=request.user,
        project_id=project_id,
        table=read_upload(file),
        batch=services.BatchInput(**body.dict()),
    )
    return Status(201, _told(batch))


@router.get("/batches/{int:batch_id}", response={200: BatchOut, **PROBLEMS})
def get_batch(request: SignedInRequest, batch_id: int) -> dict[str, Any]:
    return _told(batch_for(request.user, batch_id))


@router.put("/batches/{int:batch_id}/mapping", response={200: BatchOut, **PROBLEMS})
def map_batch_columns(request: SignedInRequest, batch_id: int, body: MappingIn) -> dict[str, Any]:
    return _told(services.map_columns(user=request.user, batch_id=batch_id, mapping=body.mapping))


@router.delete("/batches/{int:batch_id}", response={204: None, **PROBLEMS})
def discard_batch(request: SignedInRequest, batch_id: int) -> Status[None]:
    services.discard_batch(user=request.user, batch_id=batch_id)
    return Status(204, None)


@router.get("/batches/{int:batch_id}/rows", response={200: list[RowOut], **PROBLEMS})
def list_batch_rows(
    request: SignedInRequest, batch_id: int, state: RowState | None = None, after: int = 0
) -> list[BatchRow]:
    """Up to 500 rows after the row number `after`."""
    rows = selectors.rows_of(batch_for(request.user, batch_id), state=state or "")
    return list(selectors.with_drafts(rows.filter(number__gt=after))[:MAX_ROWS_PER_CALL])


@router.post("/batches/{int:batch_id}/start", response={200: BatchOut, **PROBLEMS})
def start_batch(request: SignedInRequest, batch_id: int) -> dict[str, Any]:
    return _told(services.start_batch(user=request.user, batch_id=batch_id))


@router.post("/batches/{int:batch_id}/pause", response={200: BatchOut, **PROBLEMS})
def pause_batch(request: SignedInRequest, batch_id: int) -> dict[str, Any]:
    return _told(services.pause_batch(user=request.user, batch_id=batch_id))


@router.post("/batches/{int:batch_id}/resume", response={200: BatchOut, **PROBLEMS})
def resume_batch(request: SignedInRequest, batch_id: int) -> dict[str, Any]:
    return _told(services.resume_batch(user=request.user, batch_id=batch_id))


@router.post("/batches/{int:batch_id}/cancel", response={200: BatchOut, **PROBLEMS})
def cancel_batch(request: SignedInRequest, batch_id: int) -> dict[str, Any]:
    return _told(services.cancel_batch(user=request.user, batch_id=batch_id))


@router.post("/batches/{int:batch_id}/retry", response={200: RetriedOut, **PROBLEMS})
def retry_failed_rows(request: SignedInRequest, batch_id: int) -> dict[str, int]:
    return {"num_rows": services.retry_failed(user=request.user, batch_id=batch_id)}


@router.get("/batches/{int:batch_id}/results", response={200: str, **PROBLEMS})
def batch_results(
    request: SignedInRequest, batch_id: int, format: Literal["csv", "jsonl"] = "jsonl"
) -> StreamingHttpResponse:
    """One line per draft, and one for a row that has none."""
    batch = batch_for(request.user, batch_id)
    return results.csv_response(batch) if format == "csv" else results.jsonl_response(batch)
