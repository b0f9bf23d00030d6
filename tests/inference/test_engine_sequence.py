import pytest

from inference.engine.sequence import Sequence
from inference.errors import InvalidRequest
from inference.types import Request, Sampling


def start(*, prompt: int = 4, resume: tuple[int, ...] = (), max_tokens: int = 8) -> Sequence:
    request = Request(
        id="draft",
        messages=({"role": "user", "text": "tulips"},),
        sampling=Sampling(max_tokens=max_tokens),
        resume_ids=resume,
    )
    return Sequence.start(
        ticket=0, request=request, prompt_ids=list(range(prompt)), context_length=16, now=0.0
    )


def test_a_token_becomes_an_event_at_once() -> None:
    event = start().append(50, b"tulip")
    assert event is not None
    assert (event.text, event.token_ids, event.num_prompt_tokens) == ("tulip", (50,), 4)


def test_a_character_is_held_back_until_its_last_byte() -> None:
    sequence, smile = start(), "🙂".encode()
    assert [sequence.append(id_, smile[id_ : id_ + 1]) for id_ in range(3)] == [None] * 3
    event = sequence.append(3, smile[3:])
    assert event is not None
    assert (event.text, event.token_ids) == ("🙂", (0, 1, 2, 3))


def test_a_character_that_is_cut_off_shows_as_a_replacement() -> None:
    sequence = start()
    sequence.append(50, "é".encode()[:1])
    event = sequence.finish("length")
    assert (event.text, event.token_ids, event.finish_reason) == ("\ufffd", (50,), "length")


def test_nul_never_leaves_the_engine() -> None:
    event = start().append(50, b"a\0b")
    assert event is not None
    assert event.text == "ab"


def test_resumed_tokens_count_towards_the_length() -> None:
    sequence = start(resume=(90, 91, 92), max_tokens=4)
    assert (sequence.ids[4:], sequence.num_output) == ([90, 91, 92], 3)
    sequence.append(93, b"x")
    assert sequence.is_full


def test_an_answer_ends_where_the_context_does() -> None:
    assert start(prompt=12).max_ids == 16


def test_a_prompt_without_room_for_an_answer_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="16 tokens"):
        start(prompt=16)
