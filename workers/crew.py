"""Who writes in a writing worker, and who watches: a thread for each slot, a keeper for all of them.

The writers pull from the table until it is empty. Celery brings only doorbells, so that a draft need
not wait for the keeper's next round; without the broker, or its messages, drafts are written all the same.
"""

import logging
import threading
import time
from typing import Any

from celery import shared_task
from celery.signals import worker_ready, worker_shutdown
from celery.worker.consumer import Consumer
from django.conf import settings
from django.db import Error as DatabaseProblem
from django.db import connection

from apps.common import leases
from apps.common.tasks import WRITE_DRAFTS
from apps.drafts.models import Job
from apps.drafts.services import reap_expired
from inference import EngineError
from workers import engine as engines
from workers import generation, presence

logger = logging.getLogger(__name__)

CANCEL_POLL_S = 0.4
RENEW_S = leases.LEASE.total_seconds() / 6
LOOK_S = 5.0
HAND_BACK_S = 7.0
"""After a stop: the launcher ends a worker that has not come to rest in 10 s."""


class Crew:
    """The writers of this process. Each writes one draft after another and sleeps when none is left."""

    def __init__(self, num_writers: int) -> None:
        self._bell = threading.Condition()
        self._num_rings = 0
        self._writers = [
            threading.Thread(target=self._work, name=f"writer-{number}", daemon=True)
            for number in range(num_writers)
        ]

    def start(self) -> None:
        for writer in self._writers:
            writer.start()

    def ring(self, *, everybody: bool = False) -> None:
        with self._bell:
            self._num_rings += 1
            if everybody:
                self._bell.notify_all()
            else:
                self._bell.notify()

    def join(self, *, timeout_s: float) -> None:
        """Wait until the writers have handed back what they held; they must have been asked to stop."""
        self.ring(everybody=True)
        deadline = time.monotonic() + timeout_s
        for writer in self._writers:
            writer.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while not presence.is_stopping():
            seen = self._num_rings
            self._write_all()
            with self._bell:
                # Whoever rang meanwhile may have done so after the last look at the table.
                if self._num_rings == seen and not presence.is_stopping():
                    self._bell.wait()

    def _write_all(self) -> None:
        """Until nothing is left, or the engine takes no more: then the keeper rings again."""
        try:
            while not presence.is_stopping() and generation.write_next() not in (None, generation.BUSY):
                pass
        except DatabaseProblem as error:
            logger.warning("a writer found the database away: %s", error)
        except Exception:  # the edge of the loop: the row's lease runs out and the draft goes on
            logger.exception("a writer stumbled")
        finally:
            connection.close()


class Keeper(threading.Thread):
    """One thread for all drafts of this worker: renews leases, passes on stops, looks for work.

    Leases are renewed only while the engine steps, so a hung engine loses them. A draft that
    waits for a place in the batch writes no chunk, so its lease cannot ride on chunks.
    """

    def __init__(self, crew: Crew | None = None) -> None:
        super().__init__(name="keeper", daemon=True)
        self._crew = crew
        self._steps = -1
        self._renewed_at = 0.0
        self._looked_at = 0.0

    def run(self) -> None:
        while True:
            time.sleep(CANCEL_POLL_S)
            try:
                self.look()
                self.look_for_work()
                generation.give_back_session()
            except (DatabaseProblem, EngineError) as error:
                logger.warning("the keeper missed a round: %s", error)
                connection.close()

    def look(self) -> None:
        jobs = generation.held_jobs()
        if not jobs:
            return
        self._pass_on_stops(jobs)
        steps = engines.num_steps()
        if steps != self._steps and time.monotonic() - self._renewed_at >= RENEW_S:
            self._steps, self._renewed_at = steps, time.monotonic()
            for job in jobs:
                leases.renew(Job.objects.held(pk=job.pk, fence=job.fence))

    def look_for_work(self) -> None:
        """Every few seconds: what dead workers held, and what nobody rang for."""
        if self._crew is None or time.monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = time.monotonic()
        reap_expired()
        if Job.objects.runnable().exists():
            self._crew.ring(everybody=True)

    def _pass_on_stops(self, jobs: list[Job]) -> None:
        held = Job.objects.filter(pk__in=[job.pk for job in jobs])
        stopped = set(held.filter(cancel_requested_at__isnull=False).values_list("pk", flat=True))
        for job in jobs:
            if job.pk in stopped or presence.is_stopping():
                engines.get_engine().cancel(generation.request_id(job))


_crew: Crew | None = None


@shared_task(name=WRITE_DRAFTS, ignore_result=True)
def write_drafts(job_id: int) -> None:
    """Doorbell: a writer takes the next runnable draft, which need not be the one that rang."""
    if _crew is not None:
        _crew.ring()


@worker_ready.connect
def on_ready(sender: Consumer, **_: Any) -> None:
    global _crew
    if "writing" in sender.app.amqp.queues.consume_from and _crew is None:
        _crew = Crew(settings.GALLEY_MAX_SEQUENCES)
        _crew.start()
        Keeper(_crew).start()


@worker_shutdown.connect
def on_shutdown_complete(**_: Any) -> None:
    """Writers hand back what the keeper has stopped; the end of the engine frees whoever still waits."""
    if _crew is not None:
        _crew.join(timeout_s=HAND_BACK_S)
    engines.close_engine()
    if _crew is not None:
        _crew.join(timeout_s=1.0)
