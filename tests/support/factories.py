"""Rows in the states that tests begin with, made by the product's own services."""

import itertools
from typing import Any

from apps.common.leases import ClockTimestamp, JobState
from apps.drafts import services as drafts
from apps.drafts import stream
from apps.drafts.models import Draft, Job
from apps.projects.models import Brief
from apps.projects.services import BriefInput, create_brief
from apps.reviews import services as reviews
from apps.reviews.models import Decision, Review
from apps.tuning.models import Adapter, Run
from tests.support.cast import Newsroom, Person

MODEL = {"name": "fake", "sha256": "f" * 64}
TEXT = "The doors of the library open on 4 May. Entry is free on Sundays."

_numbers = itertools.count(1)


def a_brief(room: Newsroom, **fields: Any) -> Brief:
    values: dict[str, Any] = {"subject": "Opening of the library", "num_words": 60} | fields
    values.setdefault("preset_id", room.preset.pk)
    return create_brief(user=room.eli.user, project_id=room.project.pk, brief=BriefInput(**values))


def a_queued_draft(room: Newsroom, *, brief: Brief | None = None, author: Person | None = None) -> Draft:
    user = (author or room.eli).user
    request = drafts.request_drafts(user=user, brief_id=(brief or a_brief(room)).pk, candidates=1, seed=7)
    return request.drafts.get()


def a_claimed_job(room: Newsroom, *, brief: Brief | None = None, author: Person | None = None) -> Job:
    """The job of a fresh draft, held by a worker that has begun to write."""
    draft = a_queued_draft(room, brief=brief, author=author)
    job = Job.objects.filter(draft=draft).claim_next(worker="worker-1")
    assert job is not None
    drafts.begin_writing(job=job, release_id=None, adapter_sha256="", model=MODEL)
    return job


def append_words(job: Job, *words: str) -> None:
    """One chunk a word, with a token id each."""
    for word in words:
        stream.append(job=job, text=word, token_ids=[sum(word.encode())])


def a_draft(
    room: Newsroom, *, text: str = TEXT, brief: Brief | None = None, author: Person | None = None
) -> Draft:
    """A draft written to its end."""
    job = a_claimed_job(room, brief=brief, author=author)
    append_words(job, text)
    return drafts.finish_draft(job=job, finish_reason="end")


def a_review(
    room: Newsroom, *, text: str = TEXT, brief: Brief | None = None, author: Person | None = None
) -> Review:
    draft = a_draft(room, text=text, brief=brief, author=author)
    return reviews.submit_draft(user=draft.author, draft_id=draft.pk)


def an_approval(room: Newsroom, *, text: str = TEXT, brief: Brief | None = None) -> Decision:
    review = a_review(room, text=text, brief=brief)
    decision = reviews.DecisionInput(decision="approve", content_sha256=review.content_sha256)
    return reviews.decide(user=room.rosa.user, review_id=review.pk, decision=decision)


def approvals(room: Newsroom, count: int) -> list[Decision]:
    """Approved texts of as many briefs: enough of them for a training."""
    return [
        an_approval(
            room,
            text=f"{TEXT} The reading room number {number} has a view of the river.",
            brief=a_brief(room, subject=f"Reading room number {number}"),
        )
        for number in range(count)
    ]


def a_claimed_run(room: Newsroom) -> Run:
    run = Run.objects.create(project=room.project, created_by=room.ada.user)
    claimed = Run.objects.filter(pk=run.pk).claim_next(worker="school-1")
    assert claimed is not None
    return claimed


def an_adapter(room: Newsroom, *, gate_passed: bool = True, files: dict[str, str] | None = None) -> Adapter:
    """A registered adapter of a finished run; its files are names only."""
    run = Run.objects.create(
        project=room.project, state=JobState.DONE, reason="done", finished_at=ClockTimestamp()
    )
    return Adapter.objects.create(
        project=room.project,
        run=run,
        version=room.project.adapters.count() + 1,
        sha256=f"{next(_numbers):064x}",
        base_sha256="b" * 64,
        files=files or {},
        gate=[],
        gate_passed=gate_passed,
    )


def let_the_lease_run_out(job: Job | Run) -> None:
    """As if its worker had said nothing for the length of a lease."""
    rows = type(job).objects.filter(pk=job.pk)
    rows.update(lease_until=ClockTimestamp())
