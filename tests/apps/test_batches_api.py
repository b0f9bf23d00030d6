"""Batches over JSON."""

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from apps.batches.models import Batch
from tests.support.batches import write_next
from tests.support.cast import Answer, Newsroom, assert_refused

ROWS = [{"title": "New ferry", "facts": ["from May", "two boats"]}, {"title": "Bridge", "words": 5}]


def create(room: Newsroom, **body: Any) -> Answer:
    values = {"name": "Ferries", "preset_id": room.preset.pk, "rows": ROWS} | body
    return room.eli.post(f"{room.address}/batches", **values)


def test_it_works(newsroom: Newsroom) -> None:
    answer = create(newsroom)

    assert answer.status_code == 201
    batch = answer.json()
    assert (batch["state"], batch["num_rows"]) == ("draft", 1)
    assert (batch["counts"]["waiting"], batch["counts"]["refused"]) == (1, 1)
    path = f"/batches/{batch['id']}"
    mapping = {"subject": "title", "must_say": "facts"}
    assert newsroom.eli.put(f"{path}/mapping", mapping=mapping).json()["counts"]["waiting"] == 2
    assert newsroom.eli.post(f"{path}/start").json()["state"] == "open"
    for act, state in (("pause", "paused"), ("resume", "open")):
        assert newsroom.eli.post(f"{path}/{act}").json()["state"] == state
    write_next()
    write_next(fails=True)

    done = newsroom.rosa.get(path).json()
    assert (done["state"], done["sentence"]) == ("done", "1 written, 1 failed.")
    ready, failed = newsroom.rosa.get(f"{path}/rows").json()
    assert (ready["state"], failed["state"], failed["tries"]) == ("ready", "failed", 1)
    assert newsroom.rosa.get(f"/drafts/{ready['draft_ids'][0]}").json()["brief_id"] == ready["brief_id"]
    assert [row["number"] for row in newsroom.rosa.get(f"{path}/rows", state="failed").json()] == [2]
    assert newsroom.rosa.get(f"{path}/rows", after=2).json() == []
    assert newsroom.eli.post(f"{path}/retry").json() == {"num_rows": 1}
    assert newsroom.eli.post(f"{path}/cancel").json()["state"] == "cancelled"
    assert [each["id"] for each in newsroom.rosa.get(f"{newsroom.address}/batches").json()] == [batch["id"]]


def test_a_file(newsroom: Newsroom) -> None:
    form = {"name": "Ferries", "preset_id": newsroom.preset.pk, "client_request_id": "click-1"}
    client = Client(headers=newsroom.eli.headers)
    answers = [
        client.post(
            f"/api/v1{newsroom.address}/batches/upload",
            form | {"file": SimpleUploadedFile("ferries.csv", b"subject;words\nFerry;80\n")},
        )
        for _click in range(2)
    ]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["columns"] == ["subject", "words"]


def test_a_bad_file_names_its_line(newsroom: Newsroom) -> None:
    client = Client(headers=newsroom.eli.headers)
    form = {"name": "x", "preset_id": newsroom.preset.pk, "file": SimpleUploadedFile("x.csv", b"a\nb,c\n")}
    body = assert_refused(client.post(f"/api/v1{newsroom.address}/batches/upload", form), 400, "bad_file")

    assert body["message"].startswith("Line 2: 2 cells, but 1 columns.")
    assert body["field"] == "file"


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"rows": []}, 400, "bad_file"),
        ({"rows": [{"subject": {"a": 1}}]}, 400, "bad_file"),
        ({"rows": [{"subject": "\0"}]}, 400, "bad_file"),
        ({"rows": ["text"]}, 422, "invalid_input"),
        ({"candidates": 5}, 400, "candidates_out_of_range"),
        ({"mapping": {"subject": "nowhere"}}, 400, "unknown_column"),
        ({"preset_id": 0}, 400, "unknown_preset"),
        ({"preset_id": 2**63}, 400, "unknown_preset"),
        ({"rows": [{"subject": "x" * 100_000} for _ in range(25)]}, 413, "body_too_large"),
    ],
)
def test_bad_input(newsroom: Newsroom, body: dict[str, Any], status: int, reason: str) -> None:
    assert_refused(create(newsroom, **body), status, reason)
    assert not Batch.objects.exists()


def test_a_dry_run_is_deleted_and_a_started_batch_is_not(newsroom: Newsroom) -> None:
    path = f"/batches/{create(newsroom).json()['id']}"
    assert newsroom.eli.delete(path).status_code == 204
    assert_refused(newsroom.eli.get(path), 404, "not_found")

    path = f"/batches/{create(newsroom).json()['id']}"
    newsroom.eli.post(f"{path}/start")
    assert_refused(newsroom.eli.delete(path), 409, "wrong_state")
    assert_refused(newsroom.eli.put(f"{path}/mapping", mapping={"subject": "title"}), 409, "wrong_state")


def test_a_stranger_finds_nothing_and_a_reviewer_only_looks(newsroom: Newsroom) -> None:
    batch = create(newsroom).json()
    path = f"/batches/{batch['id']}"
    for read in (path, f"{path}/rows", f"{path}/results", f"{newsroom.address}/batches"):
        assert_refused(newsroom.mallory.get(read), 404, "not_found")
    for act in ("start", "pause", "resume", "cancel", "retry"):
        assert_refused(newsroom.mallory.post(f"{path}/{act}"), 404, "not_found")
        assert_refused(newsroom.rosa.post(f"{path}/{act}"), 403, "forbidden")
    assert_refused(newsroom.mallory.delete(path), 404, "not_found")
    body = {"name": "x", "preset_id": newsroom.preset.pk, "rows": ROWS}
    assert_refused(newsroom.mallory.post(f"{newsroom.address}/batches", **body), 404, "not_found")
    assert_refused(newsroom.rosa.post(f"{newsroom.address}/batches", **body), 403, "forbidden")
