"""Writing drafts: claim a job, stream the engine's events into chunks, finish or hand back."""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from celery import shared_task
from celery.signals import worker_ready
from celery.worker.consumer import Consumer
from django.db import DatabaseError, connection

from apps.common import leases
from apps.common.errors import GalleyError
from apps.common.leases import LeaseLost
from apps.common.tasks import WRITE_DRAFTS
from apps.drafts import services, stream
from apps.drafts.models import Draft, Job
from apps.tuning.selectors import live_release
from inference import (
    Engine,
    EngineBusy,
    EngineDied,
    EngineError,
    Event,
    Request,
    Sampling,
)
from workers import engine as engines
from workers import presence

logger = logging.getLogger(__name__)

FLUSH_S = 0.05
FLUSH_TOKENS = 32
CANCEL_POLL_S = 0.4
RENEW_S = 5.0
WORKER_NAME = f"{socket.gethostname()}.{os.getpid()}"


@shared_task(name=WRITE_DRAFTS, ignore_result=True)
def write_drafts(job_id: int) -> None:
    """Doorbell: write the next runnable draft, which need not be the one that rang."""
    engines.warm_up()
    job = Job.objects.claim_next(worker=WORKER_NAME)
    if job is None:
        return
    started = time.monotonic()
    with _holding(job):
        outcome = write(job)
    logger.info("job %s draft %s: %s in %.2f s", job.pk, job.draft_id, outcome, time.monotonic() - started)


def write(job: Job) -> str:
    """Write one claimed job to its end; every way out leaves the row in a state that says so."""
    try:
        engine = engines.get_engine()
        finish_reason = _stream_into_chunks(engine, job)
        if finish_reason == "cancelled" and not was_asked_to_stop(job):
            services.hand_back(job=job)
            return "worker stopping, handed back"
        services.finish_draft(job=job, finish_reason=finish_reason)
        return finish_reason
    except LeaseLost as error:
        logger.warning("%s", error)
        return "lease lost"
    except EngineDied:
        services.hand_back(job=job, died=True)
        return "engine died, handed back"
    except EngineBusy as error:
        services.hand_back(job=job, retry_after_s=error.retry_after_s)
        return "engine busy, handed back"
    except (EngineError, GalleyError) as error:
        logger.warning("job %s failed: %s", job.pk, error)
        services.fail_draft(job=job, reason=error.reason)
        return error.reason


def _stream_into_chunks(engine: Engine, job: Job) -> str:
    """Flush the events of a request as chunks; returns the reason why the text ended."""
    draft = _begin(engine, job)
    request = _request_for(draft, job)
    buffer = _Buffer()
    for event in engine.submit(request):
        buffer.add(event)
        if event.finish_reason is None and not buffer.is_due:
            continue
        if buffer.has_content:
            text, token_ids = buffer.take()
            stream.append(job=job, text=text, token_ids=token_ids)
        if event.finish_reason is not None:
            return event.finish_reason
    raise EngineDied("the engine ended the stream without a reason")


def was_asked_to_stop(job: Job) -> bool:
    return Job.objects.filter(pk=job.pk, cancel_requested_at__isnull=False).exists()


def _begin(engine: Engine, job: Job) -> Draft:
    draft = Draft.objects.select_related("brief__project").get(pk=job.draft_id)
    release = live_release(draft.brief.project)
    return services.begin_writing(
        job=job,
        release_id=release.pk if release else None,
        adapter_sha256=release.adapter.sha256 if release and release.adapter else "",
        model={"name": engine.model_info.name, "sha256": engine.model_info.sha256},
    )


def request_id(job: Job) -> str:
    return f"{job.pk}.{job.fence}"


def _request_for(draft: Draft, job: Job) -> Request:
    version, earlier = draft.preset_version, services.committed(draft)
    return Request(
        id=request_id(job),
        messages=tuple(draft.messages),
        sampling=Sampling(
            temperature=draft.temperature,
            top_k=version.top_k,
            top_p=version.top_p,
            min_p=version.min_p,
            repetition_penalty=version.repetition_penalty,
            max_tokens=version.max_tokens,
            seed=draft.seed,
        ),
        adapter=engines.adapter_ref(draft.adapter_sha256) if draft.adapter_sha256 else None,
        resume_ids=earlier.token_ids,
        resume_text=earlier.text,
        user=str(job.user_id),
        must_say=tuple(draft.must_say),
        must_not_say=tuple(draft.must_not_say),
        no_repeats=True,
    )


@dataclass
class _Buffer:
    """Text and ids since the last flush; due after 50 ms or 32 tokens, whichever is first."""

    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    flushed_at: float = field(default_factory=time.monotonic)

    def add(self, event: Event) -> None:
        self.text.append(event.text)
        self.token_ids.extend(event.token_ids)

    @property
    def has_content(self) -> bool:
        return bool(self.token_ids) or any(self.text)

    @property
    def is_due(self) -> bool:
        return len(self.token_ids) >= FLUSH_TOKENS or time.monotonic() - self.flushed_at >= FLUSH_S

    def take(self) -> tuple[str, list[int]]:
        text, ids = "".join(self.text).replace("\0", "\ufffd"), self.token_ids
        self.text, self.token_ids, self.flushed_at = [], [], time.monotonic()
        return text, ids


# --- the keeper --------------------------------------------------------------------------------

_held: dict[int, Job] = {}


@contextmanager
def _holding(job: Job) -> Iterator[None]:
    """While a job is written here, the keeper looks after its lease and its stop button."""
    _held[job.pk] = job
    try:
        yield
    finally:
        _held.pop(job.pk, None)


class Keeper(threading.Thread):
    """One thread for all drafts of this worker: renews leases, passes on stops.

    Leases are renewed only while the engine steps, so a hung engine loses them. A draft that
    waits for a place in the batch writes no chunk, so its lease cannot ride on chunks.
    """

    def __init__(self) -> None:
        super().__init__(name="keeper", daemon=True)
        self._steps = -1
        self._renewed_at = 0.0

    def run(self) -> None:
        while True:
            time.sleep(CANCEL_POLL_S)
            try:
                self.look()
            except (DatabaseError, EngineError):
                logger.exception("the keeper missed a round")
                connection.close()

    def look(self) -> None:
        jobs = list(_held.values())
        if not jobs:
            return
        self._pass_on_stops(jobs)
        steps = engines.num_steps()
        if steps != self._steps and time.monotonic() - self._renewed_at >= RENEW_S:
            self._steps, self._renewed_at = steps, time.monotonic()
            for job in jobs:
                leases.renew(Job.objects.held(pk=job.pk, fence=job.fence))

    def _pass_on_stops(self, jobs: list[Job]) -> None:
        held = Job.objects.filter(pk__in=[job.pk for job in jobs])
        stopped = set(held.filter(cancel_requested_at__isnull=False).values_list("pk", flat=True))
        for job in jobs:
            if job.pk in stopped or presence.is_stopping():
                engines.get_engine().cancel(request_id(job))


@worker_ready.connect
def _start_keeper(sender: Consumer, **_: object) -> None:
    if "writing" in sender.app.amqp.queues.consume_from:
        Keeper().start()
