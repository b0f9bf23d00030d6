"""Acts on batches: a dry run, its start, pause and end."""

import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from apps.accounts.models import User
from apps.audit.services import record
from apps.batches.columns import ColumnMapping, checked_mapping, guess_mapping, problems_of
from apps.batches.feeding import feed, settle
from apps.batches.files import Table
from apps.batches.models import MAX_CANDIDATES, Batch, BatchRow, BatchState, RowState
from apps.common.errors import Conflict, Invalid
from apps.common.leases import ClockTimestamp, JobState
from apps.common.text import clean_line
from apps.drafts.models import Draft
from apps.drafts.services import cancel_draft
from apps.projects.models import Project
from apps.projects.policies import Act, not_found, project_for, require
from apps.styles.models import StylePreset

ROWS_AT_START = 8
"""Fed while somebody waits for the page; the workers and the sweeper feed the others."""
ROWS_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class BatchInput:
    """`mapping` None: guessed from the names of the columns."""

    name: str
    preset_id: int
    candidates: int = 1
    seed: int | None = None
    mapping: ColumnMapping | None = None
    client_request_id: str = ""


# --- the dry run -------------------------------------------------------------------------------


@transaction.atomic
def create_batch(*, user: User, project_id: int, table: Table, batch: BatchInput) -> Batch:
    """A dry run of the table: nothing is written before it is started.

    The same `client_request_id` gives the same batch again.
    """
    project = project_for(user, project_id, Act.WRITE)
    key = clean_line(batch.client_request_id, field="client_request_id", max_chars=64) or secrets.token_hex(
        16
    )
    if earlier := _earlier_batch(user, project, key):
        return earlier
    row = _new_batch(user, project, table, batch, key)
    try:
        with transaction.atomic():
            row.save()
    except IntegrityError as error:  # the other click of a double click has committed meanwhile
        if earlier := _earlier_batch(user, project, key):
            return earlier
        raise Conflict("request_in_progress", _("This file is being read already.")) from error
    _save_rows(row, table)
    num_rows = len(table.rows)
    record(actor=user, action="batch.created", obj=row, project_id=project.pk, name=row.name, rows=num_rows)
    return row


def _earlier_batch(user: User, project: Project, key: str) -> Batch | None:
    earlier = Batch.objects.filter(owner=user, client_request_id=key).first()
    if earlier and earlier.project_id != project.pk:
        raise Conflict("request_id_reused", _("This request id was used for another batch."))
    return earlier


def _new_batch(user: User, project: Project, table: Table, batch: BatchInput, key: str) -> Batch:
    preset = StylePreset.objects.filter(project=project, pk=batch.preset_id).first()
    if preset is None:
        raise Invalid("unknown_preset", _("Choose one of the project's style presets."), field="preset_id")
    if not 1 <= batch.candidates <= MAX_CANDIDATES:
        message = _("Ask for 1 to %(max)s drafts per row.") % {"max": MAX_CANDIDATES}
        raise Invalid("candidates_out_of_range", message, field="candidates")
    if batch.seed is not None and not 0 <= batch.seed < 2**32:
        raise Invalid("seed_out_of_range", _("A seed is a whole number below 4294967296."), field="seed")
    if batch.mapping is None:
        mapping = guess_mapping(table.columns)
    else:
        mapping = checked_mapping(batch.mapping, table.columns)
    return Batch(
        project=project,
        owner=user,
        client_request_id=key,
        name=clean_line(batch.name, field="name", max_chars=120, required=True),
        preset=preset,
        columns=list(table.columns),
        mapping=mapping,
        candidates=batch.candidates,
        seed=batch.seed,
    )


def _save_rows(batch: Batch, table: Table) -> None:
    rows = [
        BatchRow(batch=batch, number=number, line=row.line, fields=row.cells)
        for number, row in enumerate(table.rows, start=1)
    ]
    _judge(batch, rows)
    BatchRow.objects.bulk_create(rows, batch_size=ROWS_AT_ONCE)


def _judge(batch: Batch, rows: Iterable[BatchRow]) -> None:
    """Say of each row in memory whether a brief can be made of it."""
    for row in rows:
        problems = problems_of(row.fields, batch.mapping, preset_id=batch.preset_id)
        row.problems = [asdict(problem) for problem in problems]
        row.state = RowState.REFUSED if problems else RowState.WAITING


@transaction.atomic
def map_columns(*, user: User, batch_id: int, mapping: ColumnMapping) -> Batch:
    """Judge every row of a dry run again, with other columns."""
    batch = _locked(batch_for(user, batch_id, Act.WRITE))
    _require_state(batch, BatchState.DRAFT)
    batch.mapping = checked_mapping(mapping, batch.columns)
    batch.save(update_fields=["mapping"])
    rows = list(batch.rows.all())
    _judge(batch, rows)
    batch.rows.all().delete()  # nothing points at the rows of a dry run, and inserting beats updating
    BatchRow.objects.bulk_create(rows, batch_size=ROWS_AT_ONCE)
    return batch


@transaction.atomic
def discard_batch(*, user: User, batch_id: int) -> None:
    """Throw a dry run away. What was started stays, because its drafts do."""
    batch = _locked(batch_for(user, batch_id, Act.WRITE))
    _require_state(batch, BatchState.DRAFT)
    record(actor=user, action="batch.discarded", obj=batch, project_id=batch.project_id, name=batch.name)
    batch.delete()


# --- start, pause, end -------------------------------------------------------------------------


def start_batch(*, user: User, batch_id: int) -> Batch:
    batch = batch_for(user, batch_id, Act.WRITE)
    if not batch.rows.exclude(state=RowState.REFUSED).exists():
        message = _("No row can be written. Choose other columns, or correct the file.")
        raise Conflict("nothing_to_write", message)
    return _open(user, batch, BatchState.DRAFT, action="batch.started")


def resume_batch(*, user: User, batch_id: int) -> Batch:
    return _open(user, batch_for(user, batch_id, Act.WRITE), BatchState.PAUSED, action="batch.resumed")


def _open(user: User, batch: Batch, start: BatchState, *, action: str) -> Batch:
    changes = {"running_since": ClockTimestamp(), "hold_reason": ""}
    batch = _change(user, batch, start, to=BatchState.OPEN, action=action, **changes)
    feed(batch_id=batch.pk, at_most=ROWS_AT_START)
    return batch


def pause_batch(*, user: User, batch_id: int) -> Batch:
    """Feed no more rows; what is in the queue is finished."""
    batch = batch_for(user, batch_id, Act.WRITE)
    return _change(user, batch, BatchState.OPEN, to=BatchState.PAUSED, action="batch.paused")


def cancel_batch(*, user: User, batch_id: int) -> Batch:
    """End the batch: rows that wait are cancelled, queued drafts stopped, texts under way finished."""
    batch = batch_for(user, batch_id, Act.WRITE)
    with transaction.atomic():
        starts = (BatchState.OPEN, BatchState.PAUSED)
        batch = _change(user, batch, *starts, to=BatchState.CANCELLED, action="batch.cancelled")
        batch.rows.filter(state=RowState.WAITING).update(
            state=RowState.CANCELLED, finished_at=ClockTimestamp()
        )
    queued = Draft.objects.filter(request__batch_row__batch=batch, job__state=JobState.QUEUED)
    for draft_id in queued.values_list("pk", flat=True):
        cancel_draft(user=user, draft_id=draft_id)
    settle(batch_id=batch.pk)
    return batch


def retry_failed(*, user: User, batch_id: int) -> int:
    """Give every failed row a fresh try; returns how many there were."""
    batch = batch_for(user, batch_id, Act.WRITE)
    with transaction.atomic():
        batch = _locked(batch)
        _require_state(batch, BatchState.OPEN, BatchState.PAUSED)
        num = batch.rows.filter(state=RowState.FAILED).update(
            state=RowState.WAITING, error="", finished_at=None
        )
        if num:
            Batch.objects.filter(pk=batch.pk).update(running_since=ClockTimestamp())
            record(actor=user, action="batch.retried", obj=batch, project_id=batch.project_id, rows=num)
    feed(batch_id=batch.pk, at_most=ROWS_AT_START)
    return num


@transaction.atomic
def _change(
    user: User, batch: Batch, *starts: BatchState, to: BatchState, action: str, **changes: object
) -> Batch:
    """A second click finds the state it asks for and changes nothing."""
    changed = Batch.objects.filter(pk=batch.pk, state__in=starts).update(state=to, **changes)
    batch.refresh_from_db()
    if changed:
        record(actor=user, action=action, obj=batch, project_id=batch.project_id, name=batch.name)
    elif batch.state != to:
        _refuse_state(batch)
    return batch


def _locked(batch: Batch) -> Batch:
    """The batch as it is, kept by this transaction; a dry run may have been thrown away meanwhile."""
    locked = Batch.objects.select_for_update(of=("self",)).filter(pk=batch.pk).first()
    if locked is None:
        raise not_found()
    return locked


def _require_state(batch: Batch, *states: BatchState) -> None:
    if batch.state not in states:
        _refuse_state(batch)


def _refuse_state(batch: Batch) -> None:
    state = batch.get_state_display()
    raise Conflict("wrong_state", _("This cannot be done now: the batch is “%(state)s”.") % {"state": state})


def batch_for(user: User, batch_id: int, act: Act = Act.READ) -> Batch:
    batches = Batch.objects.for_user(user).select_related("project", "preset", "owner")
    batch = batches.filter(pk=batch_id).first()
    if batch is None:
        raise not_found()
    require(user, batch.project, act)
    return batch
