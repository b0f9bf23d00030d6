"""What the pages and the health check ask about drafts and workers."""

from datetime import timedelta
from math import ceil
from statistics import median

from django.db.models import F, QuerySet

from apps.common.leases import ClockTimestamp, JobState
from apps.drafts.models import Draft, Job, Worker
from apps.projects.models import Brief

WORKER_SILENCE_S = 20
"""A worker that has not been seen for this long counts as gone; it reports every 5 s."""
RECENT = timedelta(minutes=10)
MAX_RECENT = 50


def model_problem() -> str:
    """Why no draft can be written now, in a sentence; empty when a worker can, or none has said anything."""
    problems = [str(info.get("error", "")) for info in _living_writers().values_list("info", flat=True)]
    return problems[0] if problems and all(problems) else ""


def _living_writers() -> QuerySet[Worker]:
    return Worker.objects.filter(
        role="writing", seen_at__gt=ClockTimestamp() - timedelta(seconds=WORKER_SILENCE_S)
    )


def queue_position(draft: Draft) -> int | None:
    """1 for the draft that is written next; None once a worker has taken it."""
    return position_of(draft.job) if draft.job.state == JobState.QUEUED else None


def position_of(job: Job) -> int:
    return Job.objects.up_to(job).count()


def expected_wait_s(position: int | None) -> int | None:
    """Until the job at this place of the queue begins; None where too little is known to say.

    By Little's law texts leave at the rate of slots over the time that a text takes. What people
    ask for meanwhile comes before a batch, so for a batch this is the least.
    """
    if position is None:
        return None
    num_slots = sum(int(info.get("slots", 0)) for info in _living_writers().values_list("info", flat=True))
    seconds = _recent_seconds()
    if not num_slots or not seconds:
        return None
    num_free = max(0, num_slots - Job.objects.filter(state=JobState.RUNNING).count())
    return max(1, ceil(max(0, position - num_free) * median(seconds) / num_slots))


def _recent_seconds() -> list[float]:
    """How long the texts took that ended lately, the latest first."""
    recent = Draft.objects.filter(
        job__finished_at__gt=ClockTimestamp() - RECENT, job__state=JobState.DONE, started_at__isnull=False
    )
    latest = recent.annotate(took=F("job__finished_at") - F("started_at")).order_by("-job__finished_at")
    return [took.total_seconds() for took in latest.values_list("took", flat=True)[:MAX_RECENT]]


def tokens_per_second(draft: Draft) -> float | None:
    if not (draft.started_at and draft.finished_at and draft.num_tokens):
        return None
    seconds = (draft.finished_at - draft.started_at).total_seconds()
    return round(draft.num_tokens / seconds, 1) if seconds > 0 else None


def drafts_of(brief: Brief) -> list[list[Draft]]:
    """The drafts of a brief by request, newest request first, candidates in order."""
    requests = brief.requests.order_by("-pk").prefetch_related(
        "drafts__job", "drafts__preset_version", "drafts__release__adapter", "drafts__author"
    )
    return [sorted(request.drafts.all(), key=lambda draft: draft.candidate) for request in requests]
