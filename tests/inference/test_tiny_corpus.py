"""The corpus says what its briefs ask for, always the same for the same seed."""

import random
from itertools import islice

import pytest

from apps.styles.prompts import build_messages
from inference.tiny import banks, corpus
from inference.tiny.ask import STYLES
from inference.tiny.values import HELDOUT_TOPICS, Inventor

TRAIN = list(islice(corpus.pairs(seed=3, split="train"), 300))
HELDOUT = list(islice(corpus.pairs(seed=3, split="heldout"), 150))
PAIRS = TRAIN + HELDOUT


def test_texts_hold_every_must_say_fact() -> None:
    asked = sum(len(pair.brief.must_say) for pair in PAIRS)
    assert asked > len(PAIRS)
    assert [fact for pair in PAIRS for fact in corpus.unkept(pair, pair.text)] == []


def test_texts_avoid_what_must_not_be_said() -> None:
    terms = [(pair.text, term) for pair in PAIRS for term in pair.brief.must_not_say]
    assert len(terms) > 50
    assert [term for text, term in terms if corpus.holds(text, term)] == []


def test_texts_have_the_length_asked() -> None:
    for pair in PAIRS:
        assert abs(len(pair.text.split()) - pair.brief.num_words) <= 0.1 * pair.brief.num_words + 1


def test_no_slot_or_choice_is_left_in_a_text() -> None:
    for pair in PAIRS:
        assert not set("{}|") & set(pair.text), pair.text


def test_a_pair_depends_on_its_number_only() -> None:
    assert list(islice(corpus.pairs(seed=3, split="train", start=7), 3)) == TRAIN[7:10]
    assert next(corpus.pairs(seed=4, split="train")) != TRAIN[0]


def test_all_styles_and_prompts_of_the_product() -> None:
    assert {pair.style for pair in TRAIN} == set(STYLES)
    pair = TRAIN[0]
    built = build_messages(style=pair.style_name, instructions=pair.instructions, brief=pair.brief)
    assert [dict(message) for message in pair.messages] == [dict(message) for message in built]


def test_held_out_topics_and_names_are_never_trained_on() -> None:
    assert HELDOUT_TOPICS.isdisjoint(pair.topic for pair in TRAIN)
    assert HELDOUT_TOPICS & {pair.topic for pair in HELDOUT}
    names = banks.words("last")
    kept_back = names[len(names) - len(names) // 7 :]
    subjects_and_facts = " ".join(" ".join((p.brief.subject, *p.brief.must_say)) for p in TRAIN).split()
    assert not set(kept_back) & set(subjects_and_facts)


def test_briefs_for_the_demonstration_are_believable() -> None:
    found = corpus.briefs(seed=1, count=30)
    assert found == corpus.briefs(seed=1, count=30)
    for style, brief, text in found:
        assert style in STYLES and brief.subject and text
        assert all(corpus.holds(text, fact) for fact in brief.must_say)


def test_every_form_of_the_banks_can_be_filled() -> None:
    """A misspelt slot in a rarely chosen form would otherwise wait for its day."""
    known = set(banks.topics()["generic"]) | {"good1", "hero", "she", "her", "other", "thing"}
    known |= {"np", "short", "Short", "subject", "fact", "fact_lc", "audience", "angle"}
    known |= {"is", "was", "has", "s", "it", "its"}
    inventor = Inventor(random.Random(1), "train")
    for name in ("news", "fiction", "marketing", "tone", "facts", "briefs"):
        own = set(banks.sections(name))
        for section, forms in banks.sections(name).items():
            for form in forms:
                for slot in banks.slots(form):
                    if slot not in known | own:
                        assert inventor(slot), f"[{section}] {form}"


@pytest.mark.parametrize(
    ("text", "phrase", "expected"),
    [
        ("Tickets: 12 euros.", "tickets 12 Euros", True),
        ("It costs 120 euros.", "20 euros", False),
        ('"Ana Petrov," she said.', "ana petrov", True),
    ],
)
def test_holds_looks_at_whole_words(text: str, phrase: str, expected: bool) -> None:
    assert corpus.holds(text, phrase) is expected
