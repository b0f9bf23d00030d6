"""Briefs: what an editor asks for, and what no text can be written from."""

from typing import Any

import pytest

from apps.projects.models import Brief
from tests.support.cast import Newsroom, assert_refused
from tests.support.factories import a_brief, a_queued_draft

MEGABYTE = 1_000_000


def fields_of(room: Newsroom, **changes: Any) -> dict[str, Any]:
    fields = {
        "subject": "Opening of the library",
        "preset_id": room.preset.pk,
        "audience": "families",
        "must_say": ["the doors open on 4 May", "  ", "entry is free"],
        "must_not_say": ["luxury"],
        "num_words": 110,
    }
    return fields | changes


def test_it_works(newsroom: Newsroom) -> None:
    answer = newsroom.eli.post(f"{newsroom.address}/briefs", **fields_of(newsroom))

    assert answer.status_code == 201
    brief = newsroom.rosa.get(f"/briefs/{answer.json()['id']}").json()
    assert brief["must_say"] == ["the doors open on 4 May", "entry is free"]
    assert (brief["subject"], brief["num_words"], brief["tone"]) == ("Opening of the library", 110, "")


def test_any_script_is_kept_as_it_is(newsroom: Newsroom) -> None:
    subject = "图书馆开放日 — “İstanbul” naïve 👩‍👩‍👧"

    answer = newsroom.eli.post(f"{newsroom.address}/briefs", **fields_of(newsroom, subject=subject))

    assert answer.json()["subject"] == subject


def test_a_change_does_not_reach_drafts_that_exist(newsroom: Newsroom) -> None:
    brief = a_brief(newsroom)
    draft = a_queued_draft(newsroom, brief=brief)

    answer = newsroom.eli.put(f"/briefs/{brief.pk}", **fields_of(newsroom, subject="Closing of the library"))

    assert answer.json()["subject"] == "Closing of the library"
    draft.refresh_from_db()
    assert "Subject: Opening of the library" in draft.messages[1]["text"]


def test_a_reviewer_reads_briefs_but_writes_none(newsroom: Newsroom) -> None:
    brief = a_brief(newsroom)

    assert newsroom.rosa.get(f"{newsroom.address}/briefs").json()[0]["id"] == brief.pk
    assert_refused(newsroom.rosa.post(f"{newsroom.address}/briefs", **fields_of(newsroom)), 403, "forbidden")
    assert_refused(newsroom.rosa.put(f"/briefs/{brief.pk}", **fields_of(newsroom)), 403, "forbidden")


def test_a_stranger_finds_nothing(newsroom: Newsroom) -> None:
    one, all_ = f"/briefs/{a_brief(newsroom).pk}", f"{newsroom.address}/briefs"

    assert_refused(newsroom.mallory.get(one), 404, "not_found")
    assert_refused(newsroom.mallory.put(one, **fields_of(newsroom)), 404, "not_found")
    assert_refused(newsroom.mallory.get(all_), 404, "not_found")
    assert_refused(newsroom.mallory.post(all_, **fields_of(newsroom)), 404, "not_found")


def test_a_preset_of_another_project_is_refused(newsroom: Newsroom) -> None:
    foreign = newsroom.foreign_project.presets.first()
    assert foreign is not None

    answer = newsroom.eli.post(f"{newsroom.address}/briefs", **fields_of(newsroom, preset_id=foreign.pk))

    assert_refused(answer, 400, "unknown_preset")


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"subject": ""}, "empty", "subject"),
        ({"subject": " \t\n "}, "empty", "subject"),
        ({"subject": "x" * MEGABYTE}, "text_too_long", "subject"),
        ({"subject": "a\0b"}, "control_characters", "subject"),
        ({"audience": "a\x1b[31mb"}, "control_characters", "audience"),
        ({"angle": "x" * 501}, "text_too_long", "angle"),
        ({"tone": "\x85"}, "control_characters", "tone"),
        ({"must_say": ["fine", "a\x07"]}, "control_characters", "must_say"),
        ({"must_say": ["x" * 301]}, "text_too_long", "must_say"),
        ({"must_say": ["x"] * 21}, "too_many_items", "must_say"),
        ({"must_not_say": ["x" * 121]}, "text_too_long", "must_not_say"),
        ({"must_say": ["free for all"], "must_not_say": ["Free"]}, "contradiction", "must_not_say"),
        ({"subject": "图书馆重新开放", "must_not_say": ["开放"]}, "contradiction", "must_not_say"),
        ({"num_words": 19}, "length_out_of_range", "num_words"),
        ({"num_words": 2001}, "length_out_of_range", "num_words"),
        ({"num_words": 2**70}, "length_out_of_range", "num_words"),
        ({"preset_id": 2**70}, "unknown_preset", "preset_id"),
        ({"preset_id": -1}, "unknown_preset", "preset_id"),
    ],
)
def test_bad_input_is_refused_at_its_field(
    newsroom: Newsroom, changes: dict[str, Any], reason: str, field: str
) -> None:
    body = assert_refused(
        newsroom.eli.post(f"{newsroom.address}/briefs", **fields_of(newsroom, **changes)), 400, reason
    )

    assert body["field"] == field
    assert not Brief.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        '{"subject": 7, "preset_id": 1}',
        '{"subject": "no preset"}',
        '["no", "object"]',
        "null",
        "",
    ],
)
def test_json_of_the_wrong_shape_is_refused_with_the_field_named(newsroom: Newsroom, body: str) -> None:
    answer = newsroom.eli.send("POST", f"{newsroom.address}/briefs", body)

    assert_refused(answer, 422, "invalid_input")


def test_half_of_a_surrogate_pair_is_refused(newsroom: Newsroom) -> None:
    answer = newsroom.eli.post(f"{newsroom.address}/briefs", **fields_of(newsroom, subject="half a \ud83d"))

    assert_refused(answer, 400, "control_characters")


@pytest.mark.parametrize("body", ["{", "subject=x", b"\xff\xfe", "[" * 100_000])
def test_what_is_no_json_is_refused(newsroom: Newsroom, body: str | bytes) -> None:
    answer = newsroom.eli.send("POST", f"{newsroom.address}/briefs", body)

    assert_refused(answer, 400, "invalid_json")


def test_a_body_beyond_the_limit_is_refused(newsroom: Newsroom) -> None:
    fields = fields_of(newsroom, subject="x" * 3 * MEGABYTE)

    answer = newsroom.eli.post(f"{newsroom.address}/briefs", **fields)

    assert_refused(answer, 413, "body_too_large")


def test_the_prompt_has_one_line_for_every_field_that_is_filled(newsroom: Newsroom) -> None:
    draft = a_queued_draft(newsroom, brief=a_brief(newsroom, must_say=("a", "b"), tone="plain"))

    assert draft.messages[1]["text"].splitlines() == [
        "Subject: Opening of the library",
        "Tone: plain",
        "Must say:",
        "- a",
        "- b",
        "Length: 60 words",
    ]
    assert draft.messages[0]["text"] == f"Style: news\n{newsroom.preset.current.instructions}"
