"""How a batch is doing, in words and figures."""

from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from apps.batches.models import Batch, BatchState, RowState
from apps.batches.selectors import Counts

RATE_WINDOW = timedelta(minutes=10)
MIN_ROWS_FOR_RATE = 3
ENDED = (RowState.READY, RowState.FAILED, RowState.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """`state` is the batch's own, or `done`. The pace and `left_s` are None while nobody can know."""

    state: str
    label: str
    sentence: str
    counts: Counts
    num_rows: int
    num_ended: int
    rows_per_minute: float | None = None
    left_s: int | None = None

    @property
    def is_active(self) -> bool:
        """Whether anything changes by itself."""
        return self.state == BatchState.OPEN or self.counts[RowState.WRITING] > 0

    @property
    def chip(self) -> str:
        """The batch's state in the words of the chips."""
        return {"open": "running", "paused": "stopped"}.get(self.state, self.state)

    @property
    def left(self) -> str:
        return "" if self.left_s is None else in_words(self.left_s)


def progress_of(batch: Batch, counts: Counts) -> Progress:
    is_done = batch.state == BatchState.OPEN and not counts[RowState.WAITING] + counts[RowState.WRITING]
    per_minute = None if is_done else _rows_per_minute(batch)
    unfinished = counts[RowState.WAITING] + counts[RowState.WRITING]
    return Progress(
        state="done" if is_done else batch.state,
        label=_("Done") if is_done else batch.get_state_display(),
        sentence=_done_sentence(counts) if is_done else _sentence(batch, counts),
        counts=counts,
        num_rows=counts.total() - counts[RowState.REFUSED],
        num_ended=sum(counts[state] for state in ENDED),
        rows_per_minute=per_minute,
        left_s=round(unfinished / per_minute * 60) if per_minute else None,
    )


def _rows_per_minute(batch: Batch) -> float | None:
    """Over the last minutes of running, up to this moment: a batch that stands still gets slower."""
    if batch.state != BatchState.OPEN or batch.running_since is None:
        return None
    now = timezone.now()
    since = max(batch.running_since, now - RATE_WINDOW)
    num_ended = batch.rows.filter(finished_at__gt=since).count()
    if num_ended < MIN_ROWS_FOR_RATE:
        return None
    return num_ended / max((now - since).total_seconds(), 1.0) * 60


def _sentence(batch: Batch, counts: Counts) -> str:
    num = counts[RowState.WRITING]
    if batch.state == BatchState.DRAFT:
        return _("Nothing is written yet. Start it when its rows are right.")
    if batch.hold_reason:
        return batch.hold_reason
    if batch.state == BatchState.CANCELLED:
        return _finished_first(_("Cancelled"), num) if num else _("Cancelled. What was written stays.")
    if batch.state == BatchState.PAUSED:
        return _finished_first(_("Pausing"), num) if num else _("Paused. The rows wait until you resume.")
    return _("Rows are written in the order of the file, behind whoever waits at a desk.")


def _finished_first(what: str, num: int) -> str:
    text = ngettext(
        "%(what)s: %(num)s row in the queue is finished first.",
        "%(what)s: %(num)s rows in the queue are finished first.",
        num,
    )
    return text % {"what": what, "num": num}


def _done_sentence(counts: Counts) -> str:
    num_ready, num_failed = counts[RowState.READY], counts[RowState.FAILED]
    if num_failed:
        return _("%(ready)s written, %(failed)s failed.") % {"ready": num_ready, "failed": num_failed}
    text = ngettext("%(num)s row is written.", "All %(num)s rows are written.", num_ready)
    return text % {"num": num_ready}


def in_words(seconds: int) -> str:
    """No more exact than an estimate can be."""
    if seconds < 60:
        return _("less than a minute")
    minutes = round(seconds / 60)
    if minutes < 90:
        return _("about %(num)s min") % {"num": minutes}
    return _("about %(num)s h") % {"num": round(minutes / 60)}
