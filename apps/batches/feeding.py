"""Rows on their way: into the writing queue as there is room, then to the state their drafts lead to."""

import logging

from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.utils.translation import gettext as _

from apps.audit.services import record
from apps.batches.columns import brief_of
from apps.batches.models import Batch, BatchRow, BatchState, RowState
from apps.common.errors import Busy, Conflict, Forbidden, Invalid, NotFound
from apps.common.leases import ClockTimestamp, JobState
from apps.drafts.models import LIVE_STATES, Draft, DraftState
from apps.drafts.services import request_drafts
from apps.projects.services import create_brief

logger = logging.getLogger(__name__)

FEED = 24
"""So many drafts of a batch are live at once: enough that no worker waits for the next row."""


class _NoModel(Exception):
    """No worker can write now; the rows wait for one."""


def feed(*, batch_id: int, at_most: int = FEED) -> int:
    """Move rows into the writing queue until FEED drafts of the batch are live; returns how many rows.

    Called at the start, after each written draft and by the sweeper. Each row is a transaction of
    its own under the batch's lock, so no row is fed twice and a pause never waits long.
    """
    settle(batch_id=batch_id)
    num = 0
    try:
        while num < at_most and _feed_one(batch_id):
            num += 1
    except (Busy, _NoModel) as error:
        logger.info("batch %s waits: %s", batch_id, error)  # the sweeper tries again
    except (Forbidden, NotFound):
        _hold(
            batch_id,
            _("Whoever started this batch may not write here now. Give them their role, then resume."),
        )
    return num


@transaction.atomic
def _feed_one(batch_id: int) -> bool:
    """False when there is nothing to feed, enough is live, or another feeder is at work."""
    open_ones = Batch.objects.filter(pk=batch_id, state=BatchState.OPEN).select_related("owner")
    batch = open_ones.select_for_update(skip_locked=True, of=("self",)).first()
    if batch is None or _num_live(batch) >= FEED:
        return False
    row = batch.rows.filter(state=RowState.WAITING).first()
    if row is None:
        return False
    try:
        with transaction.atomic():
            _queue(batch, row)
    except (Invalid, Conflict) as error:
        if error.reason == "model_unavailable":
            raise _NoModel(error.message) from error
        _fail(row, error.message)  # the brief's rules have changed since the dry run
    return True


def _fail(row: BatchRow, error: str) -> None:
    BatchRow.objects.filter(pk=row.pk, state=RowState.WAITING).update(
        state=RowState.FAILED, error=error, tries=row.tries + 1, finished_at=ClockTimestamp()
    )


def _num_live(batch: Batch) -> int:
    return Draft.objects.filter(
        request__batch_row__batch=batch,
        request__batch_row__state=RowState.WRITING,
        state__in=LIVE_STATES,
    ).count()


def _queue(batch: Batch, row: BatchRow) -> None:
    """The brief of a row stays through all its tries: whoever corrects it on its desk retries with that."""
    brief_id = row.brief_id or _create_brief(batch, row)
    request = request_drafts(
        user=batch.owner,
        brief_id=brief_id,
        candidates=batch.candidates,
        seed=None if batch.seed is None else (batch.seed + (row.number - 1) * batch.candidates) % 2**32,
        client_request_id=f"batch-{batch.pk}-{row.number}-{row.tries + 1}",
        batch=True,
    )
    batch.rows.filter(pk=row.pk, state=RowState.WAITING).update(
        state=RowState.WRITING, brief_id=brief_id, request=request, tries=row.tries + 1
    )


def _create_brief(batch: Batch, row: BatchRow) -> int:
    brief = brief_of(row.fields, batch.mapping, preset_id=batch.preset_id)
    return create_brief(user=batch.owner, project_id=batch.project_id, brief=brief).pk


@transaction.atomic
def _hold(batch_id: int, reason: str) -> None:
    held = Batch.objects.filter(pk=batch_id, state=BatchState.OPEN)
    if held.update(state=BatchState.PAUSED, hold_reason=reason):
        batch = Batch.objects.get(pk=batch_id)
        record(actor=None, action="batch.paused", obj=batch, project_id=batch.project_id, reason=reason)


@transaction.atomic
def settle(*, batch_id: int) -> int:
    """Rows whose drafts have all ended get the state that follows from them; returns how many."""
    drafts = Draft.objects.filter(request=OuterRef("request"))
    written = BatchRow.objects.filter(batch_id=batch_id, state=RowState.WRITING)
    ended = written.filter(~Exists(drafts.filter(state__in=LIVE_STATES)))
    locked = list(ended.select_for_update(skip_locked=True).values_list("pk", flat=True))
    if not locked:
        return 0
    rows = written.filter(pk__in=locked)
    is_broken = Exists(drafts.filter(state=DraftState.FAILED).exclude(job__state=JobState.CANCELLED))
    has_text = Exists(drafts.exclude(state=DraftState.FAILED))
    for outcome, condition in (
        (RowState.FAILED, is_broken),
        (RowState.READY, has_text),
        (RowState.CANCELLED, ~has_text),  # stopped by a person before the first word
    ):
        rows.filter(condition).update(state=outcome, finished_at=ClockTimestamp())
    return len(locked)


def feed_after(*, draft_id: int) -> None:
    """Called by a worker after each draft: a batch gets its next row at once."""
    rows = BatchRow.objects.filter(request__drafts=draft_id)
    for batch_id in rows.values_list("batch_id", flat=True):
        feed(batch_id=batch_id)


def feed_all() -> int:
    """Called by the sweeper: whatever a dead worker or a full queue has left lying."""
    rows = BatchRow.objects.filter(batch=OuterRef("pk"))
    unsettled = Exists(rows.filter(state=RowState.WRITING))
    unfed = Q(Exists(rows.filter(state=RowState.WAITING)), state=BatchState.OPEN)
    batches = Batch.objects.exclude(state=BatchState.DRAFT).filter(unsettled | unfed)
    return sum(feed(batch_id=batch_id) for batch_id in batches.values_list("pk", flat=True))
