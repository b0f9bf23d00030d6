"""Terms that pull: which bytes are made likelier, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.wanted import WantedTerms


def rests(written: str, *terms: str) -> list[str]:
    wanted = WantedTerms(terms, written=written)
    return [pull.rest.decode() for pull in wanted.pulls(written.encode()) if not pull.is_start]


@pytest.mark.parametrize(
    ("written", "term", "rest"),
    [
        ("It opens on 18 Ap", "18 April 2025", "ril 2025"),
        ("It opens on 18", "18 April 2025", " April 2025"),
        ("Entry is free. The", "the new barn opens", " new barn opens"),
        ("here, costs rose", "Costs rose by 34%", " by 34%"),
        ("开放时间是从八点", "从八点到九点", "到九点"),
    ],
)
def test_a_term_that_has_begun_pulls_towards_its_rest(written: str, term: str, rest: str) -> None:
    assert rests(written, term) == [rest]


@pytest.mark.parametrize(
    ("written", "term"),
    [
        ("It opens in May", "18 April 2025"),
        ("a hundred and 418", "18 April 2025"),
        ("On 18 April 2025 it opens on 18", "18 April 2025"),
        ("", "18 April 2025"),
    ],
)
def test_other_text_does_not_pull(written: str, term: str) -> None:
    assert rests(written, term) == []


def test_half_a_character_is_completed() -> None:
    wanted, begun = WantedTerms(["八点到九点"]), "从八点".encode() + "到".encode()[:2]
    wanted.look(begun)
    assert [pull.rest for pull in wanted.pulls(begun) if not pull.is_start] == ["到九点".encode()[2:]]


def test_the_longer_the_beginning_the_stronger_the_pull() -> None:
    wanted = WantedTerms(["18 April 2025"])
    strengths = [wanted.pulls(text.encode())[0].strength for text in ("1", "18", "18 Ap", "18 April")]
    assert strengths == sorted(strengths)
    assert strengths[0] < strengths[-1] == 1.0


def test_a_term_is_said_in_any_case_and_unsaid_when_taken_back() -> None:
    wanted = WantedTerms(["free for all"])
    wanted.look(b"It is FREE")
    assert wanted.is_any_unsaid
    wanted.look("It is FREE – for all".encode())
    assert not wanted.is_any_unsaid
    wanted.look(b"It is FREE")
    assert wanted.is_any_unsaid


@pytest.mark.parametrize(
    ("written", "rest", "is_opening"),
    [
        ("", "Anna Schmidt", True),
        ("One name: ", "Anna Schmidt", True),
        ("One name:", " Anna Schmidt", True),
        ("It was said by", " Anna Schmidt", False),
        ("她说：", "Anna Schmidt", True),
    ],
)
def test_a_term_that_has_not_begun_is_pulled_most_where_a_part_begins(
    written: str, rest: str, is_opening: bool
) -> None:
    wanted = WantedTerms(["Anna Schmidt"])
    pulls = {pull.rest.decode(): pull for pull in wanted.pulls(written.encode())}
    assert pulls[rest].is_start
    assert (pulls[rest].strength > 0.5) is is_opening


def test_terms_without_a_letter_want_nothing() -> None:
    wanted = WantedTerms(["", " "])
    wanted.look(b"text")
    assert not wanted.is_any_unsaid
    assert wanted.pulls(b"text") == []


@given(st.text(max_size=20), st.text(min_size=2, max_size=12), st.data())
def test_a_pull_completes_the_term(before: str, term: str, data: st.DataObject) -> None:
    begun = before + " " + term[: data.draw(st.integers(1, len(term) - 1))]
    forms = {term, term[0].upper() + term[1:], term[0].lower() + term[1:]}
    for pull in WantedTerms([term]).pulls(begun.encode()):
        assert any((begun.encode() + pull.rest).endswith(form.encode()) for form in forms)
        assert 0 < pull.strength <= 1
