"""What runs by the clock: lost doorbells rung again, dead workers' work handed on, the nightly run."""

import logging
from datetime import datetime, time, timedelta

from celery import current_app, shared_task
from django.conf import settings
from django.utils import timezone

from apps.batches.feeding import feed_all
from apps.common.tasks import TRAIN, WRITE_DRAFTS
from apps.drafts.models import Job
from apps.drafts.services import reap_expired
from apps.projects.models import Project
from apps.tuning.models import Run
from apps.tuning.services import reap_expired_runs, start_nightly_run
from workers.presence import report

logger = logging.getLogger(__name__)

OVERDUE = timedelta(seconds=10)
MAX_RINGS = 100
NIGHT_WINDOW = timedelta(hours=6)


@shared_task(name="sweeper.sweep", ignore_result=True)
def sweep() -> None:
    """Every 5 s, from beat: that it arrives at all is beat's own sign of life."""
    report(name="beat", role="beat", info={})
    reaped = reap_expired(), reap_expired_runs()
    if any(reaped):
        logger.warning("handed on the work of dead workers: %s drafts, %s runs", *reaped)
    for task, rows in ((WRITE_DRAFTS, Job.objects), (TRAIN, Run.objects)):
        for pk in rows.overdue(age=OVERDUE).values_list("pk", flat=True)[:MAX_RINGS]:
            current_app.send_task(task, args=[pk])
    feed_all()


@shared_task(name="sweeper.nightly", ignore_result=True)
def nightly() -> None:
    """Every minute, from beat: start the night of each project once its hour has come."""
    now = timezone.localtime()
    if not is_night(now):
        return
    for project in Project.objects.all():
        night = start_nightly_run(project=project, local_date=now.date())
        if night:
            logger.info("night of %s: %s", project, night.skip_reason or f"run {night.run_id}")


def is_night(now: datetime) -> bool:
    """Whether the scheduled hour has come, and not so long ago that the working day has begun."""
    start = datetime.combine(now.date(), time.fromisoformat(settings.GALLEY_NIGHTLY_AT), tzinfo=now.tzinfo)
    return start <= now < start + NIGHT_WINDOW
