"""The pages of a batch as the cast sees them."""

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from apps.batches.models import Batch, BatchState
from apps.drafts.models import Draft, DraftRequest
from tests.support.batches import a_batch, a_dry_run, states, write_next
from tests.support.cast import Newsroom, Person

HOSTILE = "<script>alert(1)</script>"
CSV = b"title,facts,words,colour\nNew ferry,from May; two boats,80,blue\nOld bridge,,5,red\n"


@pytest.fixture(autouse=True)
def plain_static_files(settings: Settings) -> None:
    """The manifest is there only after `collectstatic`."""
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = settings.STORAGES | {"staticfiles": plain}


def browser(person: Person) -> Client:
    client = Client()
    client.force_login(person.user)
    return client


def address(name: str, batch: Batch) -> str:
    return reverse(f"batches:{name}", args=[batch.pk])


def upload(room: Newsroom, data: bytes = CSV, **fields: Any) -> Any:
    client, path = browser(room.eli), reverse("batches:new", args=[room.project.pk])
    request_id = client.get(path).context["form"]["client_request_id"].value()
    form = {"preset_id": room.preset.pk, "candidates": "1", "client_request_id": request_id, **fields}
    return client.post(path, form | {"file": SimpleUploadedFile("ferries.csv", data)}, follow=True)


def test_the_list_says_what_to_do(newsroom: Newsroom) -> None:
    path = reverse("batches:list", args=[newsroom.project.pk])
    new = reverse("batches:new", args=[newsroom.project.pk])

    assert new in browser(newsroom.eli).get(path).content.decode()
    rosa = browser(newsroom.rosa).get(path).content.decode()
    assert "No batch yet" in rosa
    assert new not in rosa


def test_a_file_leads_to_its_dry_run(newsroom: Newsroom) -> None:
    response = upload(newsroom)

    batch = Batch.objects.get()
    assert response.redirect_chain == [(address("detail", batch), 302)]
    assert (batch.name, batch.mapping) == (
        "ferries",
        {"subject": "title", "must_say": "facts", "num_words": "words"},
    )
    html = response.content.decode()
    for told in ("Start: write 1 row", "words: Ask for 20 to 2000 words.", "two boats", "colour"):
        assert told in html
    assert not Draft.objects.exists()


def test_the_same_form_sent_twice_is_one_batch(newsroom: Newsroom) -> None:
    for _click in range(2):
        upload(newsroom, client_request_id="click-1")

    assert Batch.objects.count() == 1


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "The file is empty."),
        (b"subject\ncaf\xe9\n", "Line 2: this is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "this is not UTF-8"),
        (b"a\n" + b"x" * (2 * 1024 * 1024), "larger than 2 MiB"),
    ],
)
def test_a_bad_file_is_told_at_its_field(newsroom: Newsroom, data: bytes, told: str) -> None:
    response = upload(newsroom, data)

    assert response.status_code == 400
    assert told in response.context["form"].errors["file"][0]
    assert not Batch.objects.exists()


def test_no_file_is_told_too(newsroom: Newsroom) -> None:
    path = reverse("batches:new", args=[newsroom.project.pk])
    response = browser(newsroom.eli).post(path, {"preset_id": newsroom.preset.pk})
    assert response.status_code == 400


def test_the_sample_is_a_file_that_is_taken(newsroom: Newsroom) -> None:
    path = reverse("batches:sample", args=[newsroom.project.pk])
    sample = browser(newsroom.eli).get(path)
    assert sample["Content-Disposition"] == 'attachment; filename="galley-briefs.csv"'

    upload(newsroom, sample.content)

    batch = Batch.objects.get()
    assert states(batch) == ["waiting", "waiting"]
    assert len(batch.mapping) == 7


def test_other_columns_are_shown_before_they_are_started(newsroom: Newsroom) -> None:
    batch, eli = a_dry_run(newsroom, rows=[{"a": "Ferry", "b": "Bridge"}]), browser(newsroom.eli)
    form = {"subject": "b", "start": ""}

    eli.post(address("columns", batch), form)
    batch.refresh_from_db()
    assert (batch.state, batch.mapping, states(batch)) == (BatchState.DRAFT, {"subject": "b"}, ["waiting"])

    for _click in range(2):
        eli.post(address("columns", batch), form)
    batch.refresh_from_db()
    assert (batch.state, states(batch)) == (BatchState.OPEN, ["writing"])
    assert DraftRequest.objects.count() == 1


def test_no_column_for_the_subject_is_told_at_the_choice(newsroom: Newsroom) -> None:
    batch = a_dry_run(newsroom)
    response = browser(newsroom.eli).post(address("columns", batch), {"subject": "", "start": ""})
    assert response.status_code == 400
    assert "no brief is without one" in response.context["form"].errors["subject"][0]


def test_the_progress_page(newsroom: Newsroom) -> None:
    batch = a_batch(newsroom, 3)
    write_next()
    write_next(fails=True)
    html = browser(newsroom.eli).get(address("detail", batch)).content.decode()
    for told in ("2 of 3 rows", "Retry 1 failed row", "Pause", "The engine died on this brief twice"):
        assert told in html
    assert 'hx-trigger="every 2s"' in html

    failed = browser(newsroom.eli).get(address("detail", batch), {"state": "failed"})
    assert len(failed.context["page"].object_list) == 1
    write_next()
    assert "hx-get" not in browser(newsroom.eli).get(address("detail", batch)).content.decode()


@pytest.mark.parametrize(
    "query", [{"state": "nothing"}, {"page": "999999999"}, {"page": "x"}, {"state": "\0"}]
)
def test_a_made_up_address_shows_rows_all_the_same(newsroom: Newsroom, query: dict[str, str]) -> None:
    batch = a_batch(newsroom, 3)
    assert browser(newsroom.eli).get(address("detail", batch), query).status_code == 200


def test_buttons(newsroom: Newsroom) -> None:
    batch, eli = a_batch(newsroom, 3), browser(newsroom.eli)
    for act, state in (
        ("pause", BatchState.PAUSED),
        ("resume", BatchState.OPEN),
        ("retry", BatchState.OPEN),
        ("cancel", BatchState.CANCELLED),
    ):
        assert eli.post(address(act, batch)).headers["Location"] == address("detail", batch)
        batch.refresh_from_db()
        assert batch.state == state, act

    told = eli.post(address("resume", batch), follow=True).content.decode()
    assert "the batch is “Cancelled”" in told


def test_a_dry_run_is_discarded(newsroom: Newsroom) -> None:
    batch = a_dry_run(newsroom)
    browser(newsroom.eli).post(address("discard", batch))
    assert not Batch.objects.exists()


PAGES = ("detail", "results_csv", "results_jsonl")
POSTS = ("columns", "discard", "pause", "resume", "cancel", "retry")


@pytest.mark.parametrize("make", [a_dry_run, a_batch])
def test_strangers_find_nothing_and_reviewers_only_look(newsroom: Newsroom, make: Any) -> None:
    batch = make(newsroom)
    mallory, rosa = browser(newsroom.mallory), browser(newsroom.rosa)
    assert mallory.get(reverse("batches:list", args=[newsroom.project.pk])).status_code == 404
    assert mallory.get(reverse("batches:sample", args=[newsroom.project.pk])).status_code == 404
    assert rosa.get(reverse("batches:new", args=[newsroom.project.pk])).status_code == 403
    for name in PAGES:
        assert mallory.get(address(name, batch)).status_code == 404, name
    for name in POSTS:
        assert mallory.post(address(name, batch)).status_code == 404, name
        assert rosa.post(address(name, batch)).status_code == 403, name
        assert rosa.get(address(name, batch)).status_code == 405, name
    html = rosa.get(address("detail", batch)).content.decode()
    assert address("pause", batch) not in html
    assert address("discard", batch) not in html


def test_what_a_file_says_is_text(newsroom: Newsroom) -> None:
    rows = [{"subject": HOSTILE, HOSTILE: HOSTILE}, {"subject": "", HOSTILE: "x"}]
    batch = a_dry_run(newsroom, rows=rows, name=HOSTILE, mapping={"subject": "subject", "tone": HOSTILE})
    eli = browser(newsroom.eli)
    assert HOSTILE not in eli.get(address("detail", batch)).content.decode()
    eli.post(address("columns", batch), {"subject": "subject", "tone": HOSTILE, "start": ""})
    assert HOSTILE not in eli.get(address("detail", batch)).content.decode()
    assert HOSTILE not in eli.get(reverse("batches:list", args=[newsroom.project.pk])).content.decode()
    batch.refresh_from_db()
    assert batch.state == BatchState.OPEN


def test_briefs_of_a_batch_do_not_bury_those_written_by_hand(newsroom: Newsroom) -> None:
    a_batch(newsroom, 3)
    html = browser(newsroom.eli).get(reverse("projects:detail", args=[newsroom.project.pk])).content.decode()
    assert "Ferry 1" not in html


def test_the_desk_of_a_row_leads_back_to_its_batch(newsroom: Newsroom) -> None:
    batch = a_batch(newsroom, 1)
    brief = batch.rows.get().brief
    assert brief is not None
    html = browser(newsroom.eli).get(reverse("drafts:desk", args=[brief.pk])).content.decode()
    assert address("detail", batch) in html
