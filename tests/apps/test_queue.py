"""Who is next: turns between people, people before batches, places in line and how full the queue may be."""

from datetime import timedelta

import pytest
from pytest_django import Settings

from apps.common.leases import ClockTimestamp, JobState
from apps.drafts import selectors, services
from apps.drafts.models import Draft, Job, Priority, Worker
from tests.support.cast import Newsroom, Person, assert_refused
from tests.support.factories import a_brief, a_claimed_job, a_queued_draft, append_words


def queue(room: Newsroom, author: Person, num_drafts: int, *, batch: bool = False) -> list[Job]:
    """One request after another, as from a program that asks for a draft of each brief."""
    brief = a_brief(room)
    requests = [
        services.request_drafts(user=author.user, brief_id=brief.pk, batch=batch) for _ in range(num_drafts)
    ]
    return [request.drafts.get().job for request in requests]


def claim(num_jobs: int) -> list[Job]:
    jobs = [Job.objects.claim_next(worker="worker-1") for _ in range(num_jobs)]
    return [job for job in jobs if job is not None]


def authors(jobs: list[Job]) -> str:
    return " ".join(job.user.username for job in jobs)


# --- turns ---------------------------------------------------------------------------------------


def test_people_take_turns_however_much_one_has_queued(newsroom: Newsroom) -> None:
    queue(newsroom, newsroom.eli, 6)
    queue(newsroom, newsroom.ada, 2)

    assert authors(claim(8)) == "eli ada eli ada eli eli eli eli"


def test_whoever_comes_late_joins_the_round_that_runs(newsroom: Newsroom) -> None:
    queue(newsroom, newsroom.eli, 10)
    claim(5)
    queue(newsroom, newsroom.ada, 3)

    assert authors(claim(6)) == "eli ada eli ada eli ada"


def test_whoever_was_served_alone_for_long_owes_nothing_for_it(newsroom: Newsroom) -> None:
    queue(newsroom, newsroom.eli, 5)
    claim(5)
    queue(newsroom, newsroom.ada, 2)
    queue(newsroom, newsroom.eli, 2)

    assert authors(claim(4)) == "ada eli ada eli"


def test_candidates_of_one_request_are_as_many_turns(newsroom: Newsroom) -> None:
    services.request_drafts(user=newsroom.eli.user, brief_id=a_brief(newsroom).pk, candidates=4)
    queue(newsroom, newsroom.ada, 1)

    assert authors(claim(3)) == "eli ada eli"


def test_a_job_that_goes_round_again_keeps_its_turn(newsroom: Newsroom) -> None:
    first = queue(newsroom, newsroom.eli, 3)[0]
    [claimed] = claim(1)
    claim(1)
    queue(newsroom, newsroom.ada, 1)

    services.hand_back(job=claimed)

    assert claim(1) == [first]


def test_a_job_handed_back_does_not_turn_the_round_back(newsroom: Newsroom) -> None:
    queue(newsroom, newsroom.eli, 10)
    claimed = claim(8)
    services.hand_back(job=claimed[0])

    [late, *_] = queue(newsroom, newsroom.ada, 5)

    assert late.turn == claimed[-1].turn + 1
    assert authors(claim(5)) == "eli eli ada eli ada"


def test_what_was_cancelled_in_line_moves_no_round(newsroom: Newsroom) -> None:
    for job in queue(newsroom, newsroom.eli, 8)[1:]:
        services.cancel_draft(user=newsroom.eli.user, draft_id=job.draft_id)

    assert queue(newsroom, newsroom.ada, 1)[0].turn == 1


def test_people_come_before_batches(newsroom: Newsroom) -> None:
    queue(newsroom, newsroom.eli, 3, batch=True)
    queue(newsroom, newsroom.ada, 2)
    queue(newsroom, newsroom.eli, 1)

    assert [job.priority for job in claim(6)] == [Priority.INTERACTIVE] * 3 + [Priority.BATCH] * 3


def test_batches_take_turns_too(newsroom: Newsroom) -> None:
    queue(newsroom, newsroom.eli, 4, batch=True)
    queue(newsroom, newsroom.ada, 2, batch=True)

    assert authors(claim(6)) == "eli ada eli ada eli eli"


# --- how full it may be --------------------------------------------------------------------------


def test_a_batch_does_not_count_as_its_authors_drafts(newsroom: Newsroom) -> None:
    queue(newsroom, newsroom.eli, services.MAX_QUEUED_PER_USER + 1, batch=True)

    assert a_queued_draft(newsroom).state == "queued"


def test_a_full_queue_is_told_in_a_sentence(newsroom: Newsroom, settings: Settings) -> None:
    settings.GALLEY_MAX_QUEUED = 3
    queue(newsroom, newsroom.ada, 2)
    brief = a_brief(newsroom)

    answer = newsroom.eli.post(f"/briefs/{brief.pk}/drafts", candidates=2)

    body = assert_refused(answer, 429, "queue_full")
    assert body["message"] == "The queue is full: 2 drafts are waiting. Try again a little later."
    assert int(answer["Retry-After"]) > 0
    assert newsroom.eli.post(f"/briefs/{brief.pk}/drafts", candidates=1).status_code == 202
    assert Job.objects.count() == 3


def test_a_backlog_leaves_the_door_open_for_people(newsroom: Newsroom, settings: Settings) -> None:
    settings.GALLEY_MAX_QUEUED = 20
    queue(newsroom, newsroom.eli, 18, batch=True)

    with pytest.raises(services.Busy):
        queue(newsroom, newsroom.ada, 1, batch=True)
    assert len(queue(newsroom, newsroom.ada, 2)) == 2


# --- place and wait ------------------------------------------------------------------------------


def test_the_place_in_line_follows_the_turns(newsroom: Newsroom) -> None:
    queue(newsroom, newsroom.eli, 3, batch=True)
    of_eli = queue(newsroom, newsroom.eli, 3)
    of_ada = queue(newsroom, newsroom.ada, 2)

    in_line = sorted([*of_eli, *of_ada], key=selectors.position_of)

    assert in_line == claim(5)
    assert [selectors.position_of(job) for job in Job.objects.filter(priority=Priority.BATCH)] == [1, 2, 3]


def test_the_place_is_told_until_the_writing_begins(newsroom: Newsroom) -> None:
    first, second = (job.draft for job in queue(newsroom, newsroom.eli, 2))
    assert [place(newsroom, draft) for draft in (first, second)] == [(1, None), (2, None)]

    claim(1)

    assert [place(newsroom, draft) for draft in (first, second)] == [(None, None), (1, None)]


def place(room: Newsroom, draft: Draft) -> tuple[int | None, int | None]:
    row = room.eli.get(f"/drafts/{draft.pk}").json()
    return row["position"], row["expected_wait_s"]


def texts_that_took(room: Newsroom, *seconds: float) -> None:
    for each in seconds:
        job = a_claimed_job(room)
        append_words(job, "The doors open.")
        services.finish_draft(job=job, finish_reason="end")
        Draft.objects.filter(pk=job.draft_id).update(started_at=ClockTimestamp() - timedelta(seconds=each))


def a_worker(*, slots: int) -> None:
    Worker.objects.create(name="writing@here", role="writing", info={"model": "tiny", "slots": slots})


def test_the_wait_follows_from_recent_texts_and_slots(newsroom: Newsroom) -> None:
    texts_that_took(newsroom, 10, 20, 300)  # one that was handed on and on does not spoil it
    a_worker(slots=2)
    queue(newsroom, newsroom.ada, 2)
    Job.objects.filter(state=JobState.QUEUED).update(
        state=JobState.RUNNING, lease_until=ClockTimestamp() + timedelta(seconds=30)
    )

    waits = [selectors.expected_wait_s(position) for position in (1, 2, 3, 8)]

    assert waits == [10, 20, 30, 80]


def test_free_slots_are_taken_at_once(newsroom: Newsroom) -> None:
    texts_that_took(newsroom, 20)
    a_worker(slots=4)

    assert [selectors.expected_wait_s(position) for position in (1, 4, 5)] == [1, 1, 5]


def test_nothing_is_promised_where_nothing_is_known(newsroom: Newsroom) -> None:
    a_worker(slots=2)
    assert selectors.expected_wait_s(3) is None

    texts_that_took(newsroom, 20)
    assert selectors.expected_wait_s(3) is not None
    Worker.objects.update(seen_at=ClockTimestamp() - timedelta(minutes=1))
    assert selectors.expected_wait_s(3) is None

    Worker.objects.update(seen_at=ClockTimestamp())
    Job.objects.update(finished_at=ClockTimestamp() - selectors.RECENT)
    assert selectors.expected_wait_s(3) is None


def test_whoever_floods_is_told_when_the_next_of_theirs_begins(newsroom: Newsroom) -> None:
    texts_that_took(newsroom, 100)
    a_worker(slots=1)
    queue(newsroom, newsroom.ada, 3)
    brief = a_brief(newsroom)
    for num in (16, 16, 16, 2):
        newsroom.eli.post(f"/briefs/{brief.pk}/drafts", candidates=num)

    answer = newsroom.eli.post(f"/briefs/{brief.pk}/drafts")

    assert_refused(answer, 429, "too_many_queued")
    assert int(answer["Retry-After"]) == 100
