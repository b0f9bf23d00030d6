"""Guesses change how fast a text comes and never what it says."""

from dataclasses import replace

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from inference.backends import Runner, Sampled
from inference.backends.fake import FakeRunner
from inference.backends.llamacpp import LlamaCppRunner
from inference.engine.costs import CostTable
from inference.engine.loop import Loop
from inference.engine.scheduler import Limits, Step
from inference.engine.sequence import Sequence
from inference.engine.speculation import PromptLookup, worthwhile
from inference.models import resolve
from inference.tiny import MODEL_DIR
from inference.types import EngineStats, Event, Message, ModelInfo, Request, Sampling
from tests.support.company import num_near_ties, write

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


def request(name: str, *, must_not_say: tuple[str, ...] = (), stop: tuple[str, ...] = ()) -> Request:
    messages: tuple[Message, ...] = (
        {"role": "system", "text": "Style: news\nTask: continue"},
        {"role": "user", "text": f"{name}\n{GIVEN}\n\n{GIVEN}"},
    )
    sampling = Sampling(temperature=0, repetition_penalty=1.0, max_tokens=60, stop=stop, logprobs=2)
    return Request(id=name, messages=messages, sampling=sampling, must_not_say=must_not_say)


def texts(runner: Runner, asked: list[Request], limits: Limits) -> tuple[list[list[Event]], EngineStats]:
    loop = Loop(runner, limits)
    return write(loop, asked), loop.stats


@pytest.mark.parametrize("options", [{}, {"must_not_say": ("bread",)}, {"stop": (" loaf",)}])
def test_a_text_is_the_same_with_guesses_but_for_near_ties(
    runner: LlamaCppRunner, options: dict[str, tuple[str, ...]]
) -> None:
    for name in ("Continue.", "Write on.", "Rewrite."):
        [plain], slow = texts(runner, [request(name, **options)], replace(LIMITS, max_guesses=0))
        [quick], fast = texts(runner, [request(name, **options)], LIMITS)
        assert (slow.num_guessed, slow.num_guessed_right) == (0, 0)
        assert fast.num_guessed > 0
        num_near_ties(quick, plain)


def test_guesses_save_steps_where_a_text_repeats_what_was_given(runner: LlamaCppRunner) -> None:
    _, slow = texts(runner, [request("Rewrite.")], replace(LIMITS, max_guesses=0))
    _, fast = texts(runner, [request("Rewrite.")], LIMITS)
    assert fast.num_guessed_right > 0
    assert fast.num_steps < slow.num_steps


class Parrot(FakeRunner):
    """Says its prompt again and again, and now and then something else. It rounds nothing.

    What it says depends on the tokens before and on `forbidden_ids`, as with a real model.
    """

    max_guesses = 4
    costs = FLAT

    def __init__(self, every: int) -> None:
        self._every = every
        self.info = ModelInfo(name="parrot", sha256="", context_length=1000, backend="test", quantization="")
        self.computed: dict[int, int] = {}

    def encode(self, request: Request) -> list[int]:
        return [ord(letter) for letter in request.messages[-1]["text"]]

    def run(self, step: Step) -> list[Sampled]:
        for row in step.rows:
            done = self.computed.get(row.sequence.ticket, 0)
            assert row.sequence.num_computed == done, "goes on where its cells end"
            self.computed[row.sequence.ticket] = done + row.num_tokens + len(row.guesses)
        return [self.draw_behind(row.sequence, 0) for row in step.rows if row.samples]

    def draw_behind(self, sequence: Sequence, number: int) -> Sampled:
        known = sequence.ids[: sequence.num_prompt]
        token = known[len(sequence.ids) % len(known)]
        if sum(sequence.ids[-3:]) % self._every == 0 or token in sequence.forbidden_ids:
            token = ord("a") + sum(sequence.ids) % 26
        while token in sequence.forbidden_ids:
            token = ord("a") + (token + 1 - ord("a")) % 26
        return Sampled(token)

    def piece(self, token_id: int) -> bytes:
        return chr(token_id).encode()

    def is_end(self, token_id: int) -> bool:
        return token_id == ord("z")

    def rewind(self, sequence: Sequence) -> None:
        assert self.computed[sequence.ticket] >= sequence.num_computed
        self.computed[sequence.ticket] = sequence.num_computed

    def free(self, sequence: Sequence) -> None:
        self.computed.pop(sequence.ticket, None)


@given(
    prompt=st.text("abcdefg ", min_size=5, max_size=30),
    every=st.integers(2, 9),
    banned=st.lists(st.text("abcdefg", min_size=1, max_size=3), max_size=2),
    stop=st.lists(st.text("abcdefg ", min_size=2, max_size=4), max_size=1),
    num=st.integers(1, 60),
)
@example(prompt="a a b a a b a a b ", every=97, banned=["a b"], stop=[], num=40)  # goes back to a guess
@example(prompt="a a a a a a a a ", every=97, banned=["a a"], stop=[], num=40)
@settings(deadline=None)
def test_without_rounding_a_text_is_the_same_to_the_letter(
    prompt: str, every: int, banned: list[str], stop: list[str], num: int
) -> None:
    asked = Request(
        id="draft",
        messages=({"role": "user", "text": prompt},),
        sampling=Sampling(max_tokens=num, stop=tuple(filter(str.strip, stop))),
        must_not_say=tuple(banned),
    )
    told = []
    for max_guesses in (0, 4):
        events, stats = texts(Parrot(every), [asked], replace(LIMITS, max_guesses=max_guesses))
        told.append([(e.token_ids, e.text, e.finish_reason) for e in events[0]])
        event(f"guessed right: {stats.num_guessed_right > 0}")
    assert told[0] == told[1]


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
