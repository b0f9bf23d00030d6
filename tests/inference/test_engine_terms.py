"""What must not be said is found while it is written, and taken back."""

import random

import pytest

from inference.engine.sequence import Sequence
from inference.engine.terms import Finding, Terms
from inference.types import Event, Request


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("an old barn", Finding(3, True)),
        ("an OLD, barn", Finding(3, True)),
        ("an older barn", None),
        ("gold ", None),
        ("an old", Finding(3, False)),
        ("an o", Finding(3, False)),
        ("a free  lunch!", Finding(2, True)),
        ("a free, ", Finding(2, False)),
        ("a free man ", None),
        ("全新的开放", Finding(0, True)),
        ("全", Finding(0, False)),
        ("全国", None),
    ],
)
def test_terms_are_found_by_whole_words(text: str, expected: Finding | None) -> None:
    assert Terms(("old", "free lunch", "全新")).find(text) == expected


def test_the_end_of_the_text_ends_its_last_word() -> None:
    assert Terms(("old",)).find("an old", final=True) == Finding(3, True)
    assert Terms(("free lunch",)).find("for free", final=True) is None


def test_a_word_that_began_before_is_not_a_term() -> None:
    assert Terms(("old",)).find("old ", before="g") is None
    assert Terms(("old",)).find("old ", before=" ") == Finding(0, True)


def test_terms_without_words_ban_nothing() -> None:
    assert Terms(("", " … ")).find("anything … at all", final=True) is None


def start(*terms: str, resume_text: str = "", no_repeats: bool = False) -> Sequence:
    request = Request(
        id="draft",
        messages=({"role": "user", "text": "barn"},),
        must_not_say=terms,
        no_repeats=no_repeats,
        resume_text=resume_text,
    )
    return Sequence.start(ticket=0, request=request, prompt_ids=[0], context_length=64, now=0.0)


def feed(sequence: Sequence, *pieces: str) -> str:
    events = [sequence.append(number, piece.encode()) for number, piece in enumerate(pieces, 10)]
    return "".join(event.text for event in events if event)


def test_a_term_is_taken_back_to_the_token_where_it_began() -> None:
    sequence = start("free lunch")
    assert feed(sequence, "A", " free", " lun") == "A"
    assert sequence.append(20, b"ch.") is None
    assert sequence.ids == [0, 10]
    assert sequence.forbidden_ids == {11}


def test_what_only_began_like_a_term_comes_out_whole() -> None:
    assert feed(start("free lunch"), "A", " free", " lun", "g", " ") == "A free lung "


def test_a_text_may_not_end_on_a_term() -> None:
    sequence = start("old")
    assert feed(sequence, "so", " old") == "so"
    assert not sequence.may_end()
    assert (sequence.ids, sequence.forbidden_ids) == ([0, 10], {11})
    assert feed(sequence, "!") == "!"
    assert sequence.may_end()


def test_a_forced_end_drops_the_term() -> None:
    sequence = start("old")
    feed(sequence, "so", " old")
    assert sequence.finish("length").text == ""


def test_a_term_that_begins_within_a_character_of_many_tokens() -> None:
    sequence, new = start("新"), "新".encode()
    assert [sequence.append(number, new[number : number + 1]) for number in range(3)] == [None] * 3
    assert (sequence.ids, sequence.forbidden_ids) == ([0, 0, 1], {2})
    event = sequence.append(9, "旧".encode()[2:])
    assert event is None or event.text != "新"


def test_a_resumed_text_goes_on_in_the_middle_of_a_word() -> None:
    assert feed(start("old", resume_text="g"), "old", " ") == "old "


@pytest.mark.parametrize("seed", range(20))
def test_no_random_text_says_a_term(seed: int) -> None:
    """A writer that draws among few syllables says the terms all the time, unless it is stopped."""
    draw = random.Random(seed)
    pieces = ("a", "b", "ab", " a", " b", " ab", "。", "新", "全", ".")
    terms = ("ab", "a b", "全新", "b")
    sequence, text = start(*terms), ""
    while len(sequence.ids) < 40:
        allowed = [number for number in range(len(pieces)) if number not in sequence.forbidden_ids]
        if not allowed:
            break
        number = draw.choice(allowed)
        if event := sequence.append(number, pieces[number].encode()):
            text += event.text
    text += sequence.finish("length").text
    assert Terms(terms).find(text, final=True) is None


def test_held_tokens_and_text_agree() -> None:
    sequence = start("free lunch")
    events = [sequence.append(n, p) for n, p in ((10, b"A"), (11, b" free"), (12, b" man"))]
    sent = [event for event in events if isinstance(event, Event)]
    assert [(event.text, event.token_ids) for event in sent] == [("A", (10,)), (" free man", (11, 12))]


def test_a_sentence_is_not_said_twice() -> None:
    sequence = start(no_repeats=True)
    assert (
        feed(sequence, "The doors open at nine. ", "Come early. ") == "The doors open at nine. Come early. "
    )
    before = len(sequence.ids)
    assert feed(sequence, "The doors", " open") == ""
    assert feed(sequence, " at", " nine", ".") == ""
    assert len(sequence.ids) == before
    assert sequence.forbidden_ids == {10}


def test_a_sentence_is_known_before_the_space_after_it_is_sent() -> None:
    sequence = start(no_repeats=True)
    assert feed(sequence, "The", " doors", " open", " now", ".") == "The doors open now."
    assert feed(sequence, " The", " doors", " open") == ""
    assert feed(sequence, " now", ".") == ""
    assert sequence.forbidden_ids == {10}


def test_a_sentence_that_goes_on_otherwise_is_let_go() -> None:
    sequence = start(no_repeats=True)
    feed(sequence, "The doors open at nine. ")
    assert feed(sequence, "The doors", " open", " late", ".", " ") == "The doors open late. "


def test_short_sentences_may_come_back() -> None:
    sequence = start(no_repeats=True)
    words = ["Yes", "it", "was.", "It", "rained.", "Yes", "it", "was.", "It", "rained.", ""]
    assert (
        feed(sequence, *(f"{word} " for word in words)) == "Yes it was. It rained. Yes it was. It rained.  "
    )


def test_chinese_sentences_are_told_apart_without_spaces() -> None:
    sequence = start(no_repeats=True)
    assert feed(sequence, "图书馆今天重新开放。", "大家都来了。") == "图书馆今天重新开放。大家都来了。"
    assert feed(sequence, "大家都来了。") == "大家都来了。"
    before = len(sequence.ids)
    assert feed(sequence, "图书馆今天", "重新开放") == ""
    assert len(sequence.ids) == before


def test_a_resumed_text_knows_what_it_has_said() -> None:
    sequence = start(no_repeats=True, resume_text="The doors open at nine. ")
    assert feed(sequence, "The doors open at nine. ") == ""
    assert sequence.forbidden_ids == {10}
