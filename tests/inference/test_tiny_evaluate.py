"""The examination counts what it says it counts."""

import pytest

from inference.tiny.corpus import LANGUAGES
from inference.tiny.evaluate import (
    Sample,
    StyleClassifier,
    cell,
    distinct,
    facts_kept,
    figures,
    heldout_briefs,
    repeats,
)


def test_briefs_come_from_every_language_and_style_in_turn() -> None:
    pairs = heldout_briefs(count=12, seed=1)
    assert len({(pair.language, pair.style) for pair in pairs}) == 6
    assert pairs == heldout_briefs(count=12, seed=1)
    assert len({pair.text for pair in pairs}) == 12


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_corpus_passes_its_own_examination(language: str) -> None:
    samples = [Sample(pair=p, text=p.text, has_ended=True) for p in heldout_briefs(count=120, seed=3)]
    found = figures(cell(samples, language), StyleClassifier(language, seed=3))  # type: ignore[arg-type]
    assert found["facts_kept"] == found["length_within_25_percent"] == found["ended"] == 1.0
    assert found["forbidden_said"] == 0.0
    assert found["style_recognised"] >= 0.95
    assert found["with_repeated_sentence"] <= 0.02
    assert found["distinct_3_ratio"] == 1.0


def test_a_text_that_forgets_its_facts_is_found_out() -> None:
    samples = [Sample(pair=p, text="Nothing.", has_ended=True) for p in heldout_briefs(count=12, seed=3)]
    assert facts_kept(samples) == 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It rained all day. It rained all day.", True),
        ("It rained all day. It snowed all day.", False),
        ("No. No.", False),
        ("门口一直排着长队。门口一直排着长队。", True),
        ("好。好。", False),
    ],
)
def test_repeated_sentences(text: str, expected: bool) -> None:
    assert repeats(text) is expected


def test_distinct_counts_n_grams() -> None:
    assert distinct(["a b c d", "a b c d"], 3) == 0.5
