"""Guesses change how fast a text comes and never what it says."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.backends.llamacpp import LlamaCppRunner
from inference.engine.costs import CostTable
from inference.engine.loop import Loop
from inference.engine.messages import Submit
from inference.engine.scheduler import Limits
from inference.engine.speculation import PromptLookup, worthwhile
from inference.models import resolve
from inference.tiny import MODEL_DIR
from inference.types import Event, Message, Request, Sampling

FLAT = CostTable({1: 1.0, 512: 1.1})
STEEP = CostTable({1: 1.0, 2: 2.0, 512: 512.0})
LIMITS = Limits(max_sequences=2, kv_cells=2048, max_guesses=8)

GIVEN = (
    "The bakery on Orchard Road opens on Monday. It sells 40 kinds of bread, and the first loaf is free. "
    "Maria Lund has run it since 1998."
)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> LlamaCppRunner:
    home = tmp_path_factory.mktemp("home")
    made = LlamaCppRunner(resolve(str(MODEL_DIR), home), cache=home, n_ctx=2048, max_sequences=2, threads=1)
    made.costs = FLAT
    return made


def request(
    name: str, *, temperature: float = 0.0, must_not_say: tuple[str, ...] = (), stop: tuple[str, ...] = ()
) -> Request:
    messages: tuple[Message, ...] = (
        {"role": "system", "text": "Style: news\nTask: continue"},
        {"role": "user", "text": f"{name}\n{GIVEN}\n\n{GIVEN}"},
    )
    sampling = Sampling(temperature=temperature, seed=5, max_tokens=60, stop=stop, logprobs=1)
    return Request(id=name, messages=messages, sampling=sampling, must_not_say=must_not_say)


def write(runner: LlamaCppRunner, asked: list[Request], limits: Limits) -> tuple[list[list[Event]], Loop]:
    loop = Loop(runner, limits)
    events: list[list[Event]] = [[] for _ in asked]
    items = loop.turn([Submit(ticket, one) for ticket, one in enumerate(asked)]).items
    while items or not loop.is_idle:
        for ticket, event in items:
            assert isinstance(event, Event)
            events[ticket].append(event)
        items = () if loop.is_idle else loop.turn([]).items
    return events, loop


def ids(events: list[Event]) -> list[int]:
    return [number for event in events for number in event.token_ids]


def margins(events: list[Event], alone: list[Event]) -> list[float]:
    """How sure the model was, in nats, wherever the two differ for the first time."""
    pairs = zip(ids(events), ids(alone), strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if place is None:
        return []
    logprobs = [one for event in alone for one in event.logprobs]
    return [abs(logprobs[place].logprob - logprobs[place].alternatives[0][1])]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("options", [{}, {"must_not_say": ("bread",)}, {"stop": (" loaf",)}])
def test_a_text_is_the_same_with_guesses_and_comes_in_fewer_steps(
    runner: LlamaCppRunner, temperature: float, options: dict[str, tuple[str, ...]]
) -> None:
    asked = [request(name, temperature=temperature, **options) for name in ("Continue.", "Write on.")]
    for one in asked:
        [plain], slow = write(runner, [one], replace(LIMITS, max_guesses=0))
        [quick], fast = write(runner, [one], LIMITS)
        assert all(margin < 0.1 for margin in margins(quick, plain))
        assert slow.stats.num_guessed == 0
        assert fast.stats.num_guessed >= fast.stats.num_guessed_right
    both, _ = write(runner, asked, LIMITS)
    assert all(events[-1].finish_reason for events in both)


def test_guesses_save_steps_where_a_text_repeats_what_was_given(runner: LlamaCppRunner) -> None:
    asked = request("Rewrite.")
    [plain], slow = write(runner, [asked], replace(LIMITS, max_guesses=0))
    [quick], fast = write(runner, [asked], LIMITS)
    assert fast.stats.num_guessed_right > 0
    saved = slow.stats.num_steps - fast.stats.num_steps
    if ids(plain) == ids(quick):
        assert saved == fast.stats.num_guessed_right


def test_what_followed_before_is_guessed_again() -> None:
    lookup = PromptLookup()
    assert lookup.guess([1, 2, 3, 4, 5, 9, 1, 2, 3], 2) == (4, 5)
    assert lookup.guess([1, 2, 3, 4, 5, 9, 1, 2, 3, 7], 2) == ()
    assert lookup.guess([1, 2], 2) == ()


def test_the_latest_of_several_is_guessed() -> None:
    assert PromptLookup().guess([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], 1) == (5,)


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40), st.integers(0, 39))
def test_tokens_that_were_taken_back_are_never_guessed(first: list[int], more: list[int], kept: int) -> None:
    """After going back to any place the guesses are those of a lookup that never saw the rest."""
    lookup = PromptLookup()
    lookup.guess(first, 4)
    ids = first[:kept] + more
    guess = lookup.guess(ids, 4)
    found = [end for end in range(3, len(ids)) if ids[end - 3 : end] == ids[-3:]]
    assert not guess or guess in [tuple(ids[end : end + 4]) for end in found]


def test_more_is_guessed_the_more_comes_true_and_the_cheaper_it_is() -> None:
    assert worthwhile(0.9, FLAT, num_rows=1, most=8) == 8
    assert worthwhile(0.1, FLAT, num_rows=1, most=8) < 8
    assert worthwhile(0.9, STEEP, num_rows=1, most=8) == 0


def test_wrong_guesses_end_guessing_and_rest_brings_it_back() -> None:
    lookup = PromptLookup()
    for _ in range(20):
        lookup.learn(num_guessed=4, num_true=0)
    assert worthwhile(lookup.share, CostTable({1: 1.0, 8: 2.0}), num_rows=1, most=8) == 0
    for _ in range(200):
        lookup.rest()
    assert worthwhile(lookup.share, CostTable({1: 1.0, 8: 2.0}), num_rows=1, most=8) > 0
