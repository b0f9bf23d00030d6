"""Acts on drafts: asking for them, writing them (a worker's side), editing, stopping."""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F
from django.utils.translation import gettext as _

from apps.accounts.models import User
from apps.audit.services import record
from apps.common.errors import Busy, Conflict, Invalid
from apps.common.faults import fault_point
from apps.common.leases import MAX_ATTEMPTS, MAX_DEATHS, ClockTimestamp, JobState, require_held
from apps.common.tasks import WRITE_DRAFTS, ring_on_commit
from apps.common.text import clean_line, clean_text, sha256
from apps.common.words import says
from apps.drafts.models import (
    EDITABLE_STATES,
    LIVE_STATES,
    Chunk,
    Draft,
    DraftRequest,
    DraftState,
    Job,
    Priority,
    Revision,
    RevisionSource,
)
from apps.drafts.selectors import expected_wait_s, model_problem, position_of
from apps.drafts.stream import hint_on_commit
from apps.projects.models import Brief
from apps.projects.policies import Act, not_found, require
from apps.projects.services import brief_for
from apps.styles.prompts import BriefFields, build_messages

MAX_CANDIDATES = 16
MAX_QUEUED_PER_USER = 50
MAX_BATCH_SHARE = 0.9
"""Of the places in the queue: a backlog never closes the door for people."""
RETRY_AFTER_S = 20
MAX_RETRY_AFTER_S = 3600
_QUEUE_LOCK = 4_743_002


# --- people's side -----------------------------------------------------------------------------


@transaction.atomic
def request_drafts(
    *,
    user: User,
    brief_id: int,
    candidates: int = 1,
    seed: int | None = None,
    client_request_id: str = "",
    batch: bool = False,
) -> DraftRequest:
    """Queue `candidates` drafts of a brief. The same `client_request_id` gives the same drafts again.

    Those of a `batch` come after everything that a person waits for, and do not count as theirs.
    """
    brief = brief_for(user, brief_id, Act.WRITE)
    if not 1 <= candidates <= MAX_CANDIDATES:
        message = _("Ask for 1 to %(max)s drafts at once.") % {"max": MAX_CANDIDATES}
        raise Invalid("candidates_out_of_range", message, field="candidates")
    if seed is not None and not 0 <= seed < 2**32:
        raise Invalid("seed_out_of_range", _("A seed is a whole number below 4294967296."), field="seed")
    key = clean_line(client_request_id, field="client_request_id", max_chars=64) or secrets.token_hex(16)
    _one_at_a_time(user)
    if earlier := _earlier_request(user, brief, key):
        return earlier
    if problem := model_problem():
        raise Conflict("model_unavailable", problem)
    priority = Priority.BATCH if batch else Priority.INTERACTIVE
    _refuse_flood(user, candidates, priority)
    request = DraftRequest.objects.create(brief=brief, user=user, client_request_id=key)
    first_seed = secrets.randbelow(2**31) if seed is None else seed
    first_turn = Job.objects.next_turn(user=user, priority=priority)
    for candidate in range(candidates):
        draft = _add_draft(request, candidate, seed=(first_seed + candidate) % 2**32)
        job = Job.objects.create(draft=draft, user=user, priority=priority, turn=first_turn + candidate)
        ring_on_commit(WRITE_DRAFTS, row_id=job.pk)
    record(
        actor=user, action="drafts.requested", obj=request, project_id=brief.project_id, candidates=candidates
    )
    return request


def _earlier_request(user: User, brief: Brief, key: str) -> DraftRequest | None:
    earlier = DraftRequest.objects.filter(user=user, client_request_id=key).first()
    if earlier and earlier.brief_id != brief.pk:
        raise Conflict("request_id_reused", _("This request id was used for another brief."))
    return earlier


def _one_at_a_time(user: User) -> None:
    """A user's requests pass one after another: a second click finds the first, and no limit is jumped."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [_QUEUE_LOCK, user.pk])


def _refuse_flood(user: User, candidates: int, priority: Priority) -> None:
    queued = Job.objects.filter(state=JobState.QUEUED)
    places = settings.GALLEY_MAX_QUEUED
    if priority == Priority.BATCH:
        places = int(places * MAX_BATCH_SHARE)
    else:
        own = queued.filter(user=user, priority=priority).order_by("turn", "pk")
        if (num_own := own.count()) + candidates > MAX_QUEUED_PER_USER:
            message = _("You have %(num)s drafts waiting; let some finish first.") % {"num": num_own}
            raise Busy("too_many_queued", message, retry_after_s=_retry_after_s(own.first()))
    if queued.count() + candidates > places:
        message = _("The queue is full: %(num)s drafts are waiting. Try again a little later.")
        raise Busy("queue_full", message % {"num": queued.count()}, retry_after_s=_retry_after_s())


def _retry_after_s(job: Job | None = None) -> int:
    """When `job`, or whichever is first in line, is expected to leave the queue."""
    wait = expected_wait_s(position_of(job) if job else 1)
    return min(wait or RETRY_AFTER_S, MAX_RETRY_AFTER_S)


def _add_draft(request: DraftRequest, candidate: int, *, seed: int) -> Draft:
    brief = request.brief
    version = brief.preset.current
    return Draft.objects.create(
        brief=brief,
        request=request,
        candidate=candidate,
        author=request.user,
        preset_version=version,
        seed=seed,
        temperature=version.temperature,
        messages=build_messages(
            style=brief.preset.style_name, instructions=version.instructions, brief=brief_fields(brief)
        ),
        must_say=brief.must_say,
        must_not_say=_enforceable(brief),
    )


def _enforceable(brief: Brief) -> list[str]:
    """What the engine rules out: a term that the brief's own facts say stays a request to the model."""
    own = "\n".join((brief.subject, *brief.must_say))
    return [term for term in brief.must_not_say if not says(own, term)]


def brief_fields(brief: Brief) -> BriefFields:
    return BriefFields(
        subject=brief.subject,
        audience=brief.audience,
        angle=brief.angle,
        must_say=tuple(brief.must_say),
        must_not_say=tuple(brief.must_not_say),
        tone=brief.tone,
        num_words=brief.num_words,
    )


@transaction.atomic
def cancel_draft(*, user: User, draft_id: int) -> Draft:
    """Stop writing and keep what stands. Stopping twice, or after the end, changes nothing."""
    draft = draft_for(user, draft_id, Act.WRITE)
    job = Job.objects.select_for_update().get(draft=draft)
    if job.is_active and job.cancel_requested_at is None:
        Job.objects.filter(pk=job.pk).update(cancel_requested_at=ClockTimestamp())
        record(actor=user, action="draft.stopped", obj=draft, project_id=draft.brief.project_id)
    if job.state == JobState.QUEUED:
        Job.objects.filter(pk=job.pk, state=JobState.QUEUED).update(
            state=JobState.CANCELLED, reason="stopped", finished_at=ClockTimestamp()
        )
        _end_draft(draft, state=_ended_state(draft, "stopped"), finish_reason="stopped")
    draft.refresh_from_db()
    return draft


@transaction.atomic
def edit_draft(*, user: User, draft_id: int, text: str, revision: int) -> Draft:
    """Save a person's text, if nobody saved another since `revision` was read."""
    draft = draft_for(user, draft_id, Act.WRITE)
    text = clean_text(text, field="text")
    saved = Draft.objects.filter(pk=draft.pk, revision=revision, state__in=EDITABLE_STATES).update(
        text=text, revision=F("revision") + 1, content_sha256=sha256(text)
    )
    draft.refresh_from_db()
    if not saved:
        refuse_stale(draft, revision)
    return draft


def refuse_stale(draft: Draft, revision: int) -> None:
    if draft.state not in EDITABLE_STATES:
        raise Conflict(
            "wrong_state",
            _("This draft cannot be edited now (%(state)s).") % {"state": draft.get_state_display()},
        )
    raise Conflict(
        "stale_revision",
        _("The text was changed elsewhere (now revision %(now)s, yours was %(yours)s). Reload to see it.")
        % {"now": draft.revision, "yours": revision},
    )


def draft_for(user: User, draft_id: int, act: Act = Act.READ) -> Draft:
    drafts = Draft.objects.for_user(user).select_related(
        "brief__project", "brief__preset", "job", "author", "preset_version", "release"
    )
    draft = drafts.filter(pk=draft_id).first()
    if draft is None:
        raise not_found()
    require(user, draft.brief.project, act)
    return draft


def add_revision(draft: Draft, *, source: RevisionSource, text: str, author: User | None) -> Revision:
    """Called inside the transaction that changes the draft."""
    last = draft.revisions.order_by("-number").values_list("number", flat=True).first() or 0
    return Revision.objects.create(
        draft=draft, number=last + 1, source=source, text=text, sha256=sha256(text), author=author
    )


# --- the worker's side -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Committed:
    """What earlier claims of a job have written: generation goes on after it."""

    text: str
    token_ids: tuple[int, ...]


@transaction.atomic
def begin_writing(*, job: Job, release_id: int | None, adapter_sha256: str, model: dict[str, str]) -> Draft:
    """Mark a claimed job's draft as being written. The release is pinned by the first claim and stays.

    Under another model than the first claim's the text starts over: its token ids mean nothing here.
    """
    require_held(job)
    rows = Draft.objects.filter(pk=job.draft_id)
    passport = {"model_name": model["name"], "model_sha256": model["sha256"]}
    rows.filter(started_at__isnull=False).exclude(model_sha256=model["sha256"]).update(
        attempt=F("attempt") + 1, last_seq=0, num_tokens=0, **passport
    )
    rows.filter(started_at__isnull=True).update(
        started_at=ClockTimestamp(), release_id=release_id, adapter_sha256=adapter_sha256, **passport
    )
    rows.filter(state=DraftState.QUEUED).update(state=DraftState.WRITING)
    hint_on_commit(job.draft_id)
    fault_point("before_begin_commit")
    return rows.select_related("preset_version", "brief").get()


def committed(draft: Draft) -> Committed:
    chunks = Chunk.objects.filter(draft=draft, attempt=draft.attempt).order_by("seq")
    rows = list(chunks.values_list("text", "token_ids"))
    return Committed(
        text="".join(text for text, _ids in rows),
        token_ids=tuple(token for _text, ids in rows for token in ids),
    )


@transaction.atomic
def finish_draft(*, job: Job, finish_reason: str) -> Draft:
    """The text is its chunks. A stop is a real draft too, unless not a word was written."""
    stopped = finish_reason == "cancelled"
    changes = {"state": JobState.CANCELLED if stopped else JobState.DONE, "reason": finish_reason}
    require_held(job, finished_at=ClockTimestamp(), **changes)
    draft = Draft.objects.select_for_update(of=("self",)).get(pk=job.draft_id)
    return _end_draft(draft, state=_ended_state(draft, finish_reason), finish_reason=finish_reason)


@transaction.atomic
def fail_draft(*, job: Job, reason: str) -> Draft:
    """The job cannot be done; the reason is shown, and what was written stays readable."""
    require_held(job, state=JobState.FAILED, reason=reason[:64], finished_at=ClockTimestamp())
    draft = Draft.objects.select_for_update(of=("self",)).get(pk=job.draft_id)
    return _end_draft(draft, state=DraftState.FAILED, finish_reason="failed")


@transaction.atomic
def hand_back(*, job: Job, died: bool = False, retry_after_s: float = 0) -> None:
    """Return a claimed job to the queue: on shutdown, or because the engine is busy or died under it."""
    require_held(job)
    if retry_after_s:
        require_held(job, run_at=ClockTimestamp() + timedelta(seconds=retry_after_s))
    _release(job, died=died)


@transaction.atomic
def reap_expired() -> int:
    """Give the jobs of dead workers back to the queue; called by the sweeper and by every worker.

    A worker that is gone is no sign against its jobs, of which it may have had many: only the attempt counts.
    """
    expired = list(Job.objects.expired().select_for_update(skip_locked=True))
    for job in expired:
        _release(job, lost=True)
    return len(expired)


def _release(job: Job, *, died: bool = False, lost: bool = False) -> None:
    """A running job goes round again, unless it was stopped, or too many engines or workers went with it."""
    job.refresh_from_db()
    deaths = job.deaths + int(died)
    if job.cancel_requested_at:
        return _give_up(job, state=JobState.CANCELLED, reason="stopped", deaths=deaths)
    if deaths >= MAX_DEATHS:
        return _give_up(job, state=JobState.FAILED, reason="poison", deaths=deaths)
    failed = died or lost
    if failed and job.attempt >= MAX_ATTEMPTS:
        return _give_up(job, state=JobState.FAILED, reason="lost", deaths=deaths)
    attempt = job.attempt if failed else job.attempt - 1
    require_held(job, state=JobState.QUEUED, lease_until=None, deaths=deaths, attempt=attempt)
    Draft.objects.filter(pk=job.draft_id, state=DraftState.WRITING).update(state=DraftState.QUEUED)
    hint_on_commit(job.draft_id)
    ring_on_commit(WRITE_DRAFTS, row_id=job.pk)
    fault_point("before_hand_back_commit")


def _give_up(job: Job, *, state: JobState, reason: str, deaths: int) -> None:
    require_held(job, state=state, reason=reason, deaths=deaths, finished_at=ClockTimestamp())
    draft = Draft.objects.select_for_update(of=("self",)).get(pk=job.draft_id)
    finish_reason = "failed" if state == JobState.FAILED else "stopped"
    _end_draft(draft, state=_ended_state(draft, finish_reason), finish_reason=finish_reason)


def _ended_state(draft: Draft, finish_reason: str) -> DraftState:
    if finish_reason == "failed" or not draft.last_seq:
        return DraftState.FAILED
    return DraftState.STOPPED if finish_reason in ("cancelled", "stopped") else DraftState.READY


def _end_draft(draft: Draft, *, state: DraftState, finish_reason: str) -> Draft:
    text = committed(draft).text
    changes: dict[str, Any] = {
        "state": state,
        "finish_reason": finish_reason,
        "finished_at": ClockTimestamp(),
        "text": text,
        "generated_text": text,
        "content_sha256": sha256(text),
        "revision": 1,
    }
    Draft.objects.filter(pk=draft.pk, state__in=LIVE_STATES).update(**changes)
    draft.refresh_from_db()
    if text:
        add_revision(draft, source=RevisionSource.GENERATED, text=text, author=None)
    hint_on_commit(draft.pk)
    fault_point("before_finish_commit")
    return draft
