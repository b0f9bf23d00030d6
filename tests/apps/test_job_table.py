"""Any order of claims, texts, crashes and stops leaves the job table and the stream whole (T-C7)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from apps.common.errors import Busy
from apps.common.leases import ENDED_STATES, MAX_ATTEMPTS, MAX_DEATHS, JobState, LeaseLost
from apps.common.text import sha256
from apps.drafts import services, stream
from apps.drafts.models import Draft, DraftState, Job
from apps.projects.models import Brief
from tests.support.cast import Newsroom
from tests.support.factories import MODEL, a_brief, let_the_lease_run_out

OTHER_MODEL = {"name": "other", "sha256": "e" * 64}
DRAFT_STATES = {
    JobState.QUEUED: {DraftState.QUEUED},
    JobState.RUNNING: {DraftState.QUEUED, DraftState.WRITING},
    JobState.DONE: {DraftState.READY, DraftState.FAILED},
    JobState.FAILED: {DraftState.FAILED},
    JobState.CANCELLED: {DraftState.STOPPED, DraftState.FAILED},
}
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
ids = st.integers(0, 7)


class JobTable(RuleBasedStateMachine):
    """Workers hold claims, some of them stale without their knowing; people ask and stop at any moment."""

    room: ClassVar[Newsroom]
    brief: ClassVar[Brief]

    def __init__(self) -> None:
        super().__init__()
        self.whole = transaction.atomic()
        self.whole.__enter__()
        self.claims: list[Job] = []
        self.fences: dict[int, int] = {}
        self.seen: dict[int, tuple[int, str]] = {}

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.whole.__exit__(None, None, None)

    # --- people

    @initialize()
    def begin(self) -> None:
        services.request_drafts(user=self.room.eli.user, brief_id=self.brief.pk, candidates=2)

    @rule(by_eli=st.booleans(), candidates=st.integers(1, 3), batch=st.booleans(), click=ids)
    def enqueue(self, by_eli: bool, candidates: int, batch: bool, click: int) -> None:
        user = (self.room.eli if by_eli else self.room.ada).user
        before = Draft.objects.count()
        key = f"click-{click}"
        asked: dict[str, Any] = {"user": user, "brief_id": self.brief.pk, "client_request_id": key}
        try:
            first = services.request_drafts(**asked, candidates=candidates, batch=batch)
        except Busy:
            assert Draft.objects.count() == before
            return
        assert services.request_drafts(**asked, candidates=candidates, batch=batch) == first
        assert Draft.objects.count() - before in (0, candidates)

    @rule(which=ids)
    def cancel(self, which: int) -> None:
        draft = self._draft(which)
        services.cancel_draft(user=self.room.eli.user, draft_id=draft.pk)

    # --- workers

    @rule()
    def claim(self) -> None:
        self._claimed(Job.objects.claim_next(worker="worker-1"))

    @rule(which=ids)
    def duplicate_doorbell(self, which: int) -> None:
        """A worker that rushes to one row takes it only if it waits, and is due."""
        row = Job.objects.filter(pk=self._draft(which).job.pk)
        is_runnable = row.runnable().exists()
        claimed = row.claim_next(worker="worker-2")
        assert (claimed is not None) == is_runnable
        self._claimed(claimed)

    def _claimed(self, job: Job | None) -> None:
        if job is None:
            return
        assert job.fence == self.fences.get(job.pk, 0) + 1
        assert (job.state, job.attempt <= job.fence) == (JobState.RUNNING, True)
        self.fences[job.pk] = job.fence
        self.claims.append(job)

    holding = precondition(lambda self: self.claims)

    @holding
    @rule(which=ids, other_model=st.booleans())
    def begin_writing(self, which: int, other_model: bool) -> None:
        with self._working(which) as job:
            model = OTHER_MODEL if other_model else MODEL
            services.begin_writing(job=job, release_id=None, adapter_sha256="", model=model)

    @holding
    @rule(which=ids, text=texts, num_tokens=st.integers(0, 3))
    def append(self, which: int, text: str, num_tokens: int) -> None:
        with self._working(which) as job:
            stream.append(job=job, text=text, token_ids=list(range(num_tokens)))

    @holding
    @rule(which=ids, reason=st.sampled_from(["end", "length", "cancelled"]))
    def finish(self, which: int, reason: str) -> None:
        with self._working(which) as job:
            services.begin_writing(job=job, release_id=None, adapter_sha256="", model=MODEL)
            services.finish_draft(job=job, finish_reason=reason)

    @holding
    @rule(which=ids)
    def fail(self, which: int) -> None:
        with self._working(which) as job:
            services.fail_draft(job=job, reason="engine_error")

    @holding
    @rule(which=ids, died=st.booleans(), retry_after_s=st.sampled_from([0, 0, 60]))
    def hand_back(self, which: int, died: bool, retry_after_s: int) -> None:
        with self._working(which) as job:
            services.hand_back(job=job, died=died, retry_after_s=retry_after_s)

    @holding
    @rule(which=ids)
    def crash(self, which: int) -> None:
        """The worker forgets; the row does not know yet."""
        self.claims.pop(which % len(self.claims))

    @rule(which=ids)
    def expire(self, which: int) -> None:
        job = self._draft(which).job
        if job.state == JobState.RUNNING:
            let_the_lease_run_out(job)

    @rule()
    def reap(self) -> None:
        expired = Job.objects.expired().count()
        assert services.reap_expired() >= expired

    @contextmanager
    def _working(self, which: int) -> Iterator[Job]:
        """A claim at work: it writes as long as it holds the row, and is told so as soon as it does not."""
        job = self.claims[which % len(self.claims)]
        row = Job.objects.get(pk=job.pk)
        is_held = (row.state, row.fence) == (JobState.RUNNING, job.fence)
        try:
            with transaction.atomic():
                yield job
        except LeaseLost:
            assert not is_held
            self.claims.remove(job)
        else:
            assert is_held

    def _draft(self, which: int) -> Draft:
        drafts = list(Draft.objects.select_related("job").order_by("pk"))
        return drafts[which % len(drafts)]

    # --- what must hold

    @invariant()
    def jobs_and_drafts_agree(self) -> None:
        """N2, as far as it can be seen at one moment."""
        for job in Job.objects.select_related("draft"):
            assert job.draft.state in DRAFT_STATES[JobState(job.state)]
            assert (job.lease_until is not None) or job.state != JobState.RUNNING
            assert (job.state in ENDED_STATES) == (job.finished_at is not None) == bool(job.reason)
            assert job.deaths <= job.attempt <= job.fence
            assert job.deaths < MAX_DEATHS or job.state in ENDED_STATES
            assert job.attempt <= MAX_ATTEMPTS
            assert job.fence == self.fences.get(job.pk, 0)
            assert job.turn >= 1

    @invariant()
    def streams_are_whole(self) -> None:
        """N3, N4 and N5: chunks are numbered without a gap, what was shown stays, the text is its chunks."""
        for draft in Draft.objects.prefetch_related("chunks"):
            chunks = [chunk for chunk in draft.chunks.all() if chunk.attempt == draft.attempt]
            assert [chunk.seq for chunk in chunks] == list(range(1, draft.last_seq + 1))
            assert sum(len(chunk.token_ids) for chunk in chunks) == draft.num_tokens
            text = "".join(chunk.text for chunk in chunks)
            attempt, shown = self.seen.get(draft.pk, (draft.attempt, ""))
            assert draft.attempt > attempt or text.startswith(shown)
            self.seen[draft.pk] = draft.attempt, text
            if not draft.is_live:
                assert (draft.text, draft.content_sha256) == (text, sha256(text))

    @invariant()
    def each_has_one_job_a_round(self) -> None:
        waiting = Job.objects.filter(state=JobState.QUEUED)
        turns = list(waiting.values_list("user_id", "priority", "turn"))
        assert len(set(turns)) == len(turns)


def check(room: Newsroom, *, num_examples: int, num_steps: int) -> None:
    JobTable.room, JobTable.brief = room, a_brief(room)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        JobTable,
        settings=settings(
            max_examples=num_examples,
            stateful_step_count=num_steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_any_order_of_events_leaves_jobs_and_streams_whole(newsroom: Newsroom) -> None:
    check(newsroom, num_examples=20, num_steps=40)


@pytest.mark.slow
def test_many_orders_of_events_leave_jobs_and_streams_whole(newsroom: Newsroom) -> None:
    check(newsroom, num_examples=400, num_steps=50)
