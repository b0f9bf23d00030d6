"""A row as a piece of work: claimed by one worker, kept by a lease, fenced against the dead.

Time is PostgreSQL's clock only, so a worker with a wrong clock neither steals nor keeps work.
"""

from datetime import timedelta
from typing import Any, ClassVar, Self, TypeVar

from django.conf import settings
from django.db import models, transaction
from django.db.models import Func, Q

from apps.common.faults import fault_point

LEASE = timedelta(seconds=settings.GALLEY_LEASE_S)
MAX_DEATHS = 2
MAX_ATTEMPTS = 5


class ClockTimestamp(Func):
    """PostgreSQL's wall clock, also inside a long transaction (`now()` stands still there)."""

    template = "clock_timestamp()"
    output_field = models.DateTimeField()

    def __init__(self) -> None:
        super().__init__()


class JobState(models.TextChoices):
    QUEUED = "queued"
    RUNNING = "running"
    STOPPED = "stopped"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE_STATES = (JobState.QUEUED, JobState.RUNNING)
ENDED_STATES = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
LEGAL_TRANSITIONS = [
    (JobState.QUEUED.value, JobState.RUNNING.value),
    (JobState.QUEUED.value, JobState.CANCELLED.value),
    (JobState.RUNNING.value, JobState.QUEUED.value),  # handed back, or its lease ran out
    (JobState.RUNNING.value, JobState.STOPPED.value),
    (JobState.RUNNING.value, JobState.DONE.value),
    (JobState.RUNNING.value, JobState.FAILED.value),
    (JobState.RUNNING.value, JobState.CANCELLED.value),
    (JobState.STOPPED.value, JobState.QUEUED.value),  # resumed
]


# One statement, because a long queue is emptied by many: the ORM would need three, at twice the time.
_CLAIM = """
    UPDATE {table}
    SET state = 'running', worker = %s, attempt = attempt + 1, fence = fence + 1,
        lease_until = clock_timestamp() + %s
    WHERE id = ({first})
    RETURNING *
"""

T = TypeVar("T", bound="Leased")


class LeasedQuerySet(models.QuerySet[T]):
    def claim_next(self, *, worker: str) -> T | None:
        """Take the next runnable row for `worker`, or None. Two workers never get the same one."""
        with transaction.atomic():
            first = self.runnable().order_by(*self.model.claim_order).values("pk")[:1]
            sql, params = first.select_for_update(skip_locked=True, of=("self",)).query.sql_with_params()
            claim = _CLAIM.format(table=self.model._meta.db_table, first=sql)
            rows = list(self.model._default_manager.raw(claim, [worker, LEASE, *params]))
            if not rows:
                return None
            fault_point("before_claim_commit")
            return rows[0]

    def runnable(self) -> Self:
        return self.filter(state=JobState.QUEUED, run_at__lte=ClockTimestamp())

    def held(self, *, pk: int, fence: int) -> Self:
        """The row as long as the holder of `fence` still owns it; every write of a worker goes through."""
        return self.filter(pk=pk, fence=fence, state=JobState.RUNNING)

    def expired(self) -> Self:
        return self.filter(state=JobState.RUNNING, lease_until__lt=ClockTimestamp())

    def overdue(self, *, age: timedelta) -> Self:
        """Runnable for longer than `age`: their doorbell was lost, or every worker is busy."""
        return self.filter(state=JobState.QUEUED, run_at__lt=ClockTimestamp() - age)


class Leased(models.Model):
    """`fence` counts every claim, `attempt` those that were not handed back in peace.

    So a healthy row may be handed back at every deploy, or by a busy engine, as often as it takes.
    `deaths` counts the attempts that took an engine with them.
    """

    claim_order: ClassVar[tuple[str, ...]] = ("priority", "run_at", "pk")

    state = models.CharField(max_length=12, choices=JobState, default=JobState.QUEUED)
    reason = models.CharField(max_length=64, blank=True)
    priority = models.PositiveSmallIntegerField(default=0)
    run_at = models.DateTimeField(db_default=ClockTimestamp())
    worker = models.CharField(max_length=100, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    fence = models.PositiveIntegerField(default=0)
    attempt = models.PositiveSmallIntegerField(default=0)
    deaths = models.PositiveSmallIntegerField(default=0)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=ClockTimestamp())
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True
        constraints = [
            models.CheckConstraint(
                condition=~Q(state=JobState.RUNNING) | Q(lease_until__isnull=False),
                name="%(app_label)s_%(class)s_running_has_lease",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=ENDED_STATES) | (~Q(reason="") & Q(finished_at__isnull=False)),
                name="%(app_label)s_%(class)s_ended_has_reason",
            ),
        ]

    @property
    def is_active(self) -> bool:
        return self.state in ACTIVE_STATES


class LeaseLost(Exception):
    """Another worker owns the row now: whoever holds this fence writes nothing more."""

    def __init__(self, row: Leased) -> None:
        super().__init__(f"{row._meta.verbose_name} {row.pk} is no longer held with fence {row.fence}")


def require_held(row: Leased, **changes: Any) -> None:
    """The guarded update with which every write of a worker begins; raises LeaseLost for a stale fence."""
    held = type(row).objects.held(pk=row.pk, fence=row.fence)  # type: ignore[attr-defined]
    if not held.update(**(changes or {"fence": row.fence})):
        raise LeaseLost(row)


def renew(rows: LeasedQuerySet[Any]) -> int:
    """Push the lease of the rows on; called only while their worker makes progress."""
    return rows.update(lease_until=ClockTimestamp() + LEASE)
