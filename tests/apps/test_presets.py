"""Style presets: a change makes a version, and a version is never changed."""

from typing import Any

import pytest
from django.db import DatabaseError, transaction

from apps.styles.models import StylePresetVersion
from tests.support.cast import Newsroom, assert_refused


def test_a_change_makes_a_version(newsroom: Newsroom) -> None:
    preset = newsroom.preset

    answer = newsroom.eli.patch(f"/presets/{preset.pk}", temperature=0.9, note="livelier")

    assert answer.status_code == 200
    assert answer.json()["current"] | {"created_at": ""} == {
        "number": 2, "temperature": 0.9, "note": "livelier", "created_at": "", "top_k": 40, "top_p": 0.95,
        "min_p": 0.0, "repetition_penalty": 1.05, "max_tokens": 512,
        "instructions": preset.versions.get(number=1).instructions,
    }  # fmt: skip
    versions = newsroom.rosa.get(f"/presets/{preset.pk}/versions").json()
    assert [(version["number"], version["temperature"]) for version in versions] == [(2, 0.9), (1, 0.6)]


@pytest.mark.parametrize("fields", [{}, {"temperature": 0.6}, {"note": "only a note"}, {"top_k": None}])
def test_a_change_of_nothing_makes_no_version(newsroom: Newsroom, fields: dict[str, Any]) -> None:
    answer = newsroom.eli.patch(f"/presets/{newsroom.preset.pk}", **fields)

    assert answer.json()["current"]["number"] == 1


def test_a_new_preset_of_an_own_style(newsroom: Newsroom) -> None:
    answer = newsroom.eli.post(f"{newsroom.address}/presets", name="Obituaries", instructions="Be brief.")

    assert answer.status_code == 201
    assert (answer.json()["kind"], answer.json()["current"]["instructions"]) == ("custom", "Be brief.")


def test_a_version_cannot_be_changed_behind_the_services(newsroom: Newsroom) -> None:
    with pytest.raises(DatabaseError, match="Cannot update"), transaction.atomic():
        StylePresetVersion.objects.filter(preset=newsroom.preset).update(temperature=2)


def test_a_reviewer_reads_presets_but_does_not_change_them(newsroom: Newsroom) -> None:
    assert newsroom.rosa.get(f"/presets/{newsroom.preset.pk}").status_code == 200
    assert_refused(newsroom.rosa.patch(f"/presets/{newsroom.preset.pk}", top_k=1), 403, "forbidden")
    assert_refused(newsroom.rosa.post(f"{newsroom.address}/presets", name="Mine"), 403, "forbidden")


def test_a_stranger_finds_nothing(newsroom: Newsroom) -> None:
    address = f"/presets/{newsroom.preset.pk}"

    assert_refused(newsroom.mallory.get(address), 404, "not_found")
    assert_refused(newsroom.mallory.patch(address, top_k=1), 404, "not_found")
    assert_refused(newsroom.mallory.get(f"{address}/versions"), 404, "not_found")
    assert_refused(newsroom.mallory.get(f"{newsroom.address}/presets"), 404, "not_found")


def test_a_taken_name_is_refused(newsroom: Newsroom) -> None:
    assert_refused(newsroom.eli.post(f"{newsroom.address}/presets", name="NEWS"), 409, "name_taken")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_k", 1001),
        ("top_p", 1.5),
        ("min_p", -1),
        ("repetition_penalty", 0.4),
        ("max_tokens", 8),
        ("max_tokens", 10**12),
    ],
)
def test_a_number_out_of_its_range_is_refused(newsroom: Newsroom, field: str, value: float) -> None:
    answer = newsroom.eli.patch(f"/presets/{newsroom.preset.pk}", **{field: value})

    assert assert_refused(answer, 400, "out_of_range")["field"] == field


def test_an_unknown_kind_is_refused(newsroom: Newsroom) -> None:
    answer = newsroom.eli.post(f"{newsroom.address}/presets", name="Poems", kind="poetry")

    assert_refused(answer, 400, "unknown_kind")


@pytest.mark.parametrize(
    ("instructions", "reason"), [("x" * 4001, "text_too_long"), ("a\0b", "control_characters")]
)
def test_instructions_that_cannot_be_kept_are_refused(
    newsroom: Newsroom, instructions: str, reason: str
) -> None:
    answer = newsroom.eli.patch(f"/presets/{newsroom.preset.pk}", instructions=instructions)

    assert_refused(answer, 400, reason)
    assert newsroom.preset.current.number == 1
