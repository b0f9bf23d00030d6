"""POST /briefs/{id}/drafts: queued at once, written by a worker later."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import current_app
from pytest_django import DjangoCaptureOnCommitCallbacks

from apps.common.leases import JobState
from apps.common.tasks import WRITE_DRAFTS
from apps.drafts.models import Draft, Job, Worker
from apps.drafts.services import MAX_QUEUED_PER_USER
from tests.support.cast import Answer, Newsroom, assert_refused
from tests.support.factories import a_brief


def write(room: Newsroom, **body: Any) -> Answer:
    return room.eli.post(f"/briefs/{a_brief(room).pk}/drafts", **body)


def test_it_works(newsroom: Newsroom) -> None:
    answer = write(newsroom, candidates=3, seed=41)

    assert answer.status_code == 202
    drafts = answer.json()["drafts"]
    assert [(draft["candidate"], draft["seed"]) for draft in drafts] == [(0, 41), (1, 42), (2, 43)]
    first = drafts[0]["id"]
    assert drafts[0]["stream"] == f"/ws/drafts/{first}/"
    assert drafts[0]["events"] == f"/api/v1/drafts/{first}/events"
    row = newsroom.rosa.get(f"/drafts/{first}").json()
    assert (row["state"], row["text"], row["position"], row["preset_version"]) == ("queued", "", 1, 1)
    assert Job.objects.filter(state=JobState.QUEUED).count() == 3


@pytest.fixture
def doorbells() -> Iterator[redis.Redis]:
    with current_app.connection_for_write() as connection:
        client: redis.Redis = connection.default_channel.client
        client.delete("writing")
        yield client
        client.delete("writing")


def test_a_worker_is_rung_for_once_the_rows_are_committed(
    newsroom: Newsroom,
    doorbells: redis.Redis,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        write(newsroom, candidates=2)
        assert doorbells.llen("writing") == 0

    message = doorbells.lpop("writing")
    assert isinstance(message, bytes)
    assert WRITE_DRAFTS.encode() in message
    assert doorbells.llen("writing") == 1


def test_a_double_click_is_one_request(newsroom: Newsroom) -> None:
    address = f"/briefs/{a_brief(newsroom).pk}/drafts"

    first = newsroom.eli.post(address, candidates=2, client_request_id="click-1")
    second = newsroom.eli.post(address, candidates=2, client_request_id="click-1")

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert Draft.objects.count() == 2


def test_the_same_request_id_of_another_person_is_another_request(newsroom: Newsroom) -> None:
    address = f"/briefs/{a_brief(newsroom).pk}/drafts"

    first = newsroom.eli.post(address, client_request_id="click-1").json()
    second = newsroom.ada.post(address, client_request_id="click-1").json()

    assert first["request_id"] != second["request_id"]


def test_a_request_id_used_for_another_brief_is_refused(newsroom: Newsroom) -> None:
    assert write(newsroom, client_request_id="click-1").status_code == 202

    assert_refused(write(newsroom, client_request_id="click-1"), 409, "request_id_reused")


def test_seeds_go_round_at_their_end(newsroom: Newsroom) -> None:
    drafts = write(newsroom, candidates=2, seed=2**32 - 1).json()["drafts"]

    assert [draft["seed"] for draft in drafts] == [2**32 - 1, 0]


def test_without_a_seed_two_requests_differ(newsroom: Newsroom) -> None:
    seeds = {write(newsroom).json()["drafts"][0]["seed"] for _ in range(3)}

    assert len(seeds) == 3


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"candidates": 0}, 400, "candidates_out_of_range"),
        ({"candidates": 17}, 400, "candidates_out_of_range"),
        ({"candidates": 10**12}, 400, "candidates_out_of_range"),
        ({"seed": -1}, 400, "seed_out_of_range"),
        ({"seed": 2**32}, 400, "seed_out_of_range"),
        ({"client_request_id": "x" * 65}, 400, "text_too_long"),
        ({"client_request_id": "a\0"}, 400, "control_characters"),
        ({"candidates": "many"}, 422, "invalid_input"),
    ],
)
def test_bad_input(newsroom: Newsroom, body: dict[str, Any], status: int, reason: str) -> None:
    assert_refused(write(newsroom, **body), status, reason)
    assert not Draft.objects.exists()


def test_a_flood_is_told_when_to_come_back(newsroom: Newsroom) -> None:
    for _ in range(MAX_QUEUED_PER_USER // 16):
        write(newsroom, candidates=16)
    write(newsroom, candidates=MAX_QUEUED_PER_USER % 16)

    answer = write(newsroom)

    assert_refused(answer, 429, "too_many_queued")
    assert int(answer["Retry-After"]) > 0
    assert Job.objects.count() == MAX_QUEUED_PER_USER


def test_no_model_no_draft(newsroom: Newsroom) -> None:
    problem = "the model /nowhere.gguf cannot be read (No such file or directory)"
    Worker.objects.create(name="writing@here", role="writing", info={"error": problem})

    body = assert_refused(write(newsroom), 409, "model_unavailable")

    assert body["message"] == problem
    assert not Draft.objects.exists()


def test_one_worker_with_a_model_is_enough(newsroom: Newsroom) -> None:
    Worker.objects.create(name="writing@here", role="writing", info={"error": "no model"})
    Worker.objects.create(name="writing@there", role="writing", info={"model": "tiny"})

    assert write(newsroom).status_code == 202


def test_a_reviewer_does_not_write(newsroom: Newsroom) -> None:
    assert_refused(newsroom.rosa.post(f"/briefs/{a_brief(newsroom).pk}/drafts"), 403, "forbidden")


def test_a_stranger_finds_neither_brief_nor_drafts(newsroom: Newsroom) -> None:
    brief = a_brief(newsroom)
    draft = newsroom.eli.post(f"/briefs/{brief.pk}/drafts").json()["drafts"][0]

    assert_refused(newsroom.mallory.post(f"/briefs/{brief.pk}/drafts"), 404, "not_found")
    assert_refused(newsroom.mallory.get(f"/briefs/{brief.pk}/drafts"), 404, "not_found")
    assert_refused(newsroom.mallory.get(f"/drafts/{draft['id']}"), 404, "not_found")
