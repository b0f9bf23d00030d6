"""Which column holds what, and what is wrong with a row: the same rules as for a brief by hand."""

from typing import Any

import pytest

from apps.batches.columns import brief_of, checked_mapping, guess_mapping, problems_of
from apps.common.errors import Invalid

MAPPING = {"subject": "S", "must_say": "F", "must_not_say": "N", "tone": "T", "num_words": "W"}


@pytest.mark.parametrize(
    ("columns", "mapping"),
    [
        (
            ["subject", "must_say", "num_words"],
            {"subject": "subject", "must_say": "must_say", "num_words": "num_words"},
        ),
        (
            ["TITLE", "Key Facts", "Word count"],
            {"subject": "TITLE", "must_say": "Key Facts", "num_words": "Word count"},
        ),
        (
            ["must-not-say", "Tone of voice", "Target audience"],
            {"must_not_say": "must-not-say", "tone": "Tone of voice", "audience": "Target audience"},
        ),
        (["headline", "subject"], {"subject": "subject"}),
        (["Title", "title "], {"subject": "Title"}),
        (["colour"], {}),
    ],
)
def test_columns_are_found_by_their_names(columns: list[str], mapping: dict[str, str]) -> None:
    assert guess_mapping(columns) == mapping


@pytest.mark.parametrize(
    ("mapping", "reason", "field"),
    [
        ({"subject": "nowhere"}, "unknown_column", "subject"),
        ({"subject": "a", "colour": "a"}, "unknown_field", "mapping"),
        ({"tone": "a"}, "subject_without_column", "subject"),
        ({"subject": ""}, "subject_without_column", "subject"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(mapping: dict[str, str], reason: str, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        checked_mapping(mapping, ["a", "b"])

    assert (refused.value.reason, refused.value.field) == (reason, field)


def test_a_row_becomes_a_brief() -> None:
    cells: dict[str, Any] = {
        "S": "New ferry",
        "F": "from May; two boats\r\n 12 euros ;",
        "N": ["a;b"],
        "W": " 80 ",
    }

    brief = brief_of(cells, MAPPING, preset_id=7)

    assert (brief.subject, brief.tone, brief.num_words, brief.preset_id) == ("New ferry", "", 80, 7)
    assert brief.must_say == ("from May", "two boats", "12 euros")
    assert brief.must_not_say == ("a;b",)  # a list from JSON is cut nowhere
    assert brief_of({"S": "x"}, MAPPING, preset_id=7).num_words == 120


def test_a_good_row_has_no_problem() -> None:
    assert problems_of({"S": "New ferry", "W": "80"}, MAPPING, preset_id=7) == []


def test_all_problems_of_a_row_are_told_with_their_columns() -> None:
    cells: dict[str, Any] = {
        "S": " ",
        "F": ";".join("abcdefghijklmnopqrstuvw"),
        "N": "x" * 121,
        "T": "a\x07",
        "W": "many",
    }

    problems = problems_of(cells, MAPPING, preset_id=7)

    assert [(problem.field, problem.column) for problem in problems] == [
        ("num_words", "W"),
        ("subject", "S"),
        ("must_say", "F"),
        ("must_not_say", "N"),
        ("tone", "T"),
    ]
    assert "“many” is not a whole number." in problems[0].message


@pytest.mark.parametrize("words", ["5", "2001", "-80", "80.5", "1_00", "८०", "9" * 5000, "inf"])
def test_a_length_that_is_none(words: str) -> None:
    [problem] = problems_of({"S": "New ferry", "W": words}, MAPPING, preset_id=7)

    assert (problem.field, problem.column) == ("num_words", "W")
    assert len(problem.message) < 100


def test_a_contradiction_is_told_at_its_column() -> None:
    [problem] = problems_of({"S": "Cheap boats", "N": "cheap"}, MAPPING, preset_id=7)

    assert problem.column == "N"
