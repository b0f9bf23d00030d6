"""What the pages and the health check ask about drafts and workers."""

from datetime import timedelta

from apps.common.leases import ClockTimestamp
from apps.drafts.models import Draft, Worker
from apps.projects.models import Brief

WORKER_SILENCE_S = 20
"""A worker that has not been seen for this long counts as gone; it reports every 5 s."""


def model_problem() -> str:
    """Why no draft can be written now, in a sentence; empty when a worker can, or none has said anything."""
    alive = Worker.objects.filter(
        role="writing", seen_at__gt=ClockTimestamp() - timedelta(seconds=WORKER_SILENCE_S)
    )
    problems = [str(info.get("error", "")) for info in alive.values_list("info", flat=True)]
    return problems[0] if problems and all(problems) else ""


def drafts_of(brief: Brief) -> list[list[Draft]]:
    """The drafts of a brief by request, newest request first, candidates in order."""
    requests = brief.requests.order_by("-pk").prefetch_related(
        "drafts__job", "drafts__preset_version", "drafts__release__adapter", "drafts__author"
    )
    return [sorted(request.drafts.all(), key=lambda draft: draft.candidate) for request in requests]
