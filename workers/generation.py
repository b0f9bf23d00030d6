"""Writing a draft: claim a job, stream the engine's events into chunks, finish or hand back."""

import logging
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connection

from apps.batches.feeding import feed_after
from apps.common.errors import GalleyError
from apps.common.faults import fault_point
from apps.common.leases import LEASE, LeaseLost
from apps.drafts import services, stream
from apps.drafts.models import Draft, Job, Priority
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
WORKER_NAME = f"{socket.gethostname()}.{os.getpid()}"
BUSY = "engine busy, handed back"
DATABASE_GONE = (OperationalError, InterfaceError)
DATABASE_POLL_S = 0.5

_claiming = threading.Lock()
_held: dict[str, Job] = {}


def write_next() -> str | None:
    """Claim the next job that this worker may take and write it; how it ended, or None if there was none."""
    engines.warm_up()
    job = _claim()
    if job is None:
        return None
    started = time.monotonic()
    try:
        outcome = write(job)
    except DATABASE_GONE as error:
        logger.warning("job %s waits for the database: %s", job.pk, error)
        outcome = _let_go(job)
    finally:
        del _held[request_id(job)]
    if job.priority == Priority.BATCH:
        with suppress(*DATABASE_GONE):  # the sweeper feeds too
            feed_after(draft_id=job.draft_id)
    logger.info("job %s draft %s: %s in %.2f s", job.pk, job.draft_id, outcome, time.monotonic() - started)
    return outcome


def _claim() -> Job | None:
    """The next job by turn, within two rules of this worker.

    A quarter of the slots stays free of batches, so that a person need not wait for the end of a
    batch's text. And when an engine dies, every text in it is a suspect: suspects are written one at
    a time beside unsuspected texts, so that the next death tells which of them it was.
    """
    with _claiming:
        rows = Job.objects.all()
        held = held_jobs()
        if any(job.deaths for job in held):
            rows = rows.filter(deaths=0)
        if sum(job.priority == Priority.BATCH for job in held) >= num_batch_slots():
            rows = rows.filter(priority=Priority.INTERACTIVE)
        job = rows.claim_next(worker=WORKER_NAME)
        if job is not None:
            _held[request_id(job)] = job
        return job


def _let_go(job: Job) -> str:
    """Hand a job back once the database answers; after the length of a lease another worker takes it."""
    deadline = time.monotonic() + LEASE.total_seconds()
    while time.monotonic() < deadline:
        connection.close()
        time.sleep(DATABASE_POLL_S)
        with suppress(*DATABASE_GONE):
            try:
                services.hand_back(job=job)
            except LeaseLost:  # the commit that seemed to fail was made, or another worker has it
                return "lease lost"
            return "database gone, handed back"
    return "database gone"


def held_jobs() -> list[Job]:
    """What is being written here: the keeper looks after their leases and stop buttons."""
    return list(_held.values())


def num_batch_slots() -> int:
    num_slots: int = settings.GALLEY_MAX_SEQUENCES
    return max(1, num_slots * 3 // 4)


def write(job: Job) -> str:
    """Write one claimed job to its end; every way out leaves the row in a state that says so."""
    fault_point("after_claim_commit")
    try:
        engine = engines.get_engine()
        finish_reason = _stream_into_chunks(engine, job)
        if finish_reason == "cancelled" and not was_asked_to_stop(job):
            services.hand_back(job=job)
            return "worker stopping, handed back"
        services.finish_draft(job=job, finish_reason=finish_reason)
        fault_point("after_finish_commit")
        return finish_reason
    except LeaseLost as error:
        logger.warning("%s", error)
        return "lease lost"
    except EngineDied:
        services.hand_back(job=job, died=not presence.is_stopping())
        return "engine died, handed back"
    except EngineBusy as error:
        services.hand_back(job=job, retry_after_s=error.retry_after_s)
        return BUSY
    except (EngineError, GalleyError) as error:
        logger.warning("job %s failed: %s", job.pk, error)
        services.fail_draft(job=job, reason=error.reason)
        return error.reason


def _stream_into_chunks(engine: Engine, job: Job) -> str:
    """Flush the events of a request as chunks; returns the reason why the text ended."""
    draft = _begin(engine, job)
    request = request_for(draft, job)
    give_back_session()
    buffer = _Buffer()
    for event in engine.submit(request):
        buffer.add(event)
        if event.finish_reason is None and not buffer.is_due:
            continue
        if buffer.has_content:
            text, token_ids = buffer.take()
            stream.append(job=job, text=text, token_ids=token_ids)
            give_back_session()
            fault_point("after_chunk_commit")
        if event.finish_reason is not None:
            return event.finish_reason
    raise EngineDied("the engine ended the stream without a reason")


def give_back_session() -> None:
    """To the pool, where there is one: for most of the time that a text takes nothing is stored."""
    if "pool" in connection.settings_dict["OPTIONS"]:
        close_old_connections()


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


def request_for(draft: Draft, job: Job) -> Request:
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
        request_class="batch" if job.priority == Priority.BATCH else "interactive",
    )


@dataclass
class _Buffer:
    """Text and ids since the last flush; due after 50 ms or 32 tokens, whichever is first."""

    text: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    flushed_at: float = 0.0  # the first words are due at once

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
