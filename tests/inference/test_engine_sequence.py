import pytest

from inference.engine.sequence import Sequence
from inference.errors import InvalidRequest
from inference.types import Request, Sampling, TokenLogprobs


def start(
    *, prompt: int = 4, resume: tuple[int, ...] = (), max_tokens: int = 8, stop: tuple[str, ...] = ()
) -> Sequence:
    request = Request(
        id="draft",
        messages=({"role": "user", "text": "tulips"},),
        sampling=Sampling(max_tokens=max_tokens, stop=stop),
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


def test_a_stop_string_ends_the_text_before_itself() -> None:
    sequence = start(stop=("\n\n", "END"))
    assert sequence.append(50, b"one.\n") is None
    assert sequence.append(51, b"\ntwo") is None
    assert sequence.is_stopped
    event = sequence.finish("stop")
    assert (event.text, event.token_ids, event.finish_reason) == ("one.", (50,), "stop")


def test_what_only_began_like_a_stop_string_comes_out() -> None:
    sequence = start(stop=("END",))
    assert sequence.append(50, b"the E") is None
    event = sequence.append(51, b"N")
    assert event is None
    event = sequence.append(52, b"T!")
    assert event is not None and event.text == "the ENT!"
    assert not sequence.is_stopped


def test_a_stop_string_within_one_token_keeps_what_stands_before_it() -> None:
    sequence = start(stop=("END",))
    sequence.append(50, b"fin END of")
    assert sequence.finish("stop").text == "fin "


def test_logprobs_go_with_their_tokens() -> None:
    sequence, told = start(), TokenLogprobs(text="a", logprob=-0.5, alternatives=(("a", -0.5),))
    event = sequence.append(50, b"a", told)
    assert event is not None and event.logprobs == (told,)
