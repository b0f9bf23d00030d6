"""Checks of a text against its brief."""

import pytest

from apps.quality.checks import Check, check_text, missing_facts


def check(name: str, text: str, *, must_say: tuple[str, ...] = (), must_not_say: tuple[str, ...] = (),
          num_words: int = 10) -> Check:  # fmt: skip
    checks = check_text(text, must_say=must_say, must_not_say=must_not_say, num_words=num_words)
    return next(check for check in checks if check.name == name)


def test_there_is_a_row_for_each_check() -> None:
    checks = check_text("Short.", must_say=(), must_not_say=(), num_words=100)

    assert [check.name for check in checks] == ["facts", "banned", "length", "repetition"]
    assert all(check.label and check.detail for check in checks)


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        ("opens on 4 May", "The library OPENS, on  4 May."),
        ("costs €12", "A ticket costs €12!"),
        ("the naïve café", "THE NAÏVE CAFÉ is back"),
        ("Größe", "die grösse"),
        ("ﬁne", "fine"),
        ("图书馆", "新图书馆开放了。"),
        ("!!", "anything"),
    ],
)
def test_a_fact_is_found_whatever_its_case_spacing_and_punctuation(fact: str, text: str) -> None:
    assert missing_facts(text, [fact]) == []


@pytest.mark.parametrize(
    ("fact", "text"), [("12 euros", "It costs 112 euros"), ("Ann", "Annual report"), ("4 May", "on 14 May")]
)
def test_a_fact_inside_another_word_is_not_found(fact: str, text: str) -> None:
    assert missing_facts(text, [fact]) == [fact]


def test_missing_facts_are_named() -> None:
    row = check("facts", "Entry is free.", must_say=("entry is free", "opens on 4 May"))

    assert not row.passed
    assert row.detail == "Missing: opens on 4 May"


@pytest.mark.parametrize(
    ("term", "text", "passed"),
    [
        ("cheap", "A cheap ticket", False),
        ("cheap", "CHEAP!", False),
        ("cheap", "Cheaper than ever", True),
        ("last minute", "a last-minute offer", False),
        ("art", "a party to start", True),
        ("!!", "anything!!", True),
        ("便宜", "很便宜的票", False),
    ],
)
def test_banned_terms_are_found_as_whole_words(term: str, text: str, passed: bool) -> None:
    assert check("banned", text, must_not_say=(term,)).passed is passed


@pytest.mark.parametrize(
    ("num_words", "passed"), [(7, False), (8, True), (10, True), (12, True), (13, False)]
)
def test_the_length_may_be_a_quarter_off(num_words: int, passed: bool) -> None:
    assert check("length", "word " * num_words, num_words=10).passed is passed


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("The doors open at nine. The doors open at nine.", False),
        ("The doors open at nine. the DOORS open at nine.", False),
        ("The doors open at nine. The doors open at ten.", True),
        ("Yes. Yes. Yes.", True),  # too short to be a fault
        ("图书馆从五月四日起对外开放了。图书馆从五月四日起对外开放了。", False),
    ],
)
def test_a_sentence_said_twice_is_found(text: str, passed: bool) -> None:
    assert check("repetition", text).passed is passed
