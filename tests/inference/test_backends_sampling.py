"""The rule from logits to a token: against llama.cpp's own chain, and by its properties."""

import ctypes
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_cpp import llama_cpp as llama

from inference.backends import sampling as rule
from inference.backends.sampling import Floats, Ids
from inference.engine.wanted import TERM_PULL, Pull
from inference.types import Sampling

VOCAB = 200
untimed = settings(deadline=None, max_examples=50)
PLAIN = Sampling(temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0)

answers = st.lists(st.integers(0, VOCAB - 1), max_size=100)
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from((0.3, 0.6, 1.0, 1.7)),
    top_k=st.sampled_from((0, 1, 5, 40, 150)),
    top_p=st.sampled_from((0.1, 0.5, 0.95, 1.0)),
    min_p=st.sampled_from((0.0, 0.02, 0.3)),
    repetition_penalty=st.sampled_from((0.7, 1.0, 1.05, 1.8)),
    presence_penalty=st.sampled_from((-1.0, 0.0, 0.8)),
    frequency_penalty=st.sampled_from((-0.4, 0.0, 0.3)),
    seed=st.integers(0, 2**32 - 1),
)


def some_logits(seed: int) -> tuple[Ids, Floats]:
    """Ids and logits of a whole vocabulary, likeliest first."""
    logits = np.random.default_rng(seed).normal(scale=3.0, size=VOCAB).astype(np.float32)
    ids = np.argsort(-logits, kind="stable")
    return ids, logits[ids]


def chain_of(sampling: Sampling, answer: list[int]) -> Any:
    """The stages of the llama.cpp backend that come before the draw."""
    penalties = (sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty)
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    for stage in (
        llama.llama_sampler_init_top_k(sampling.top_k or 1000),
        llama.llama_sampler_init_penalties(VOCAB, 64, *penalties),
        llama.llama_sampler_init_top_p(sampling.top_p, 1),
        llama.llama_sampler_init_min_p(sampling.min_p, 1),
        llama.llama_sampler_init_temp(sampling.temperature),
        llama.llama_sampler_init_dist(0),
    ):
        llama.llama_sampler_chain_add(chain, stage)
    for token_id in answer:
        llama.llama_sampler_accept(chain, token_id)
    return chain


def narrowed_by_llama(ids: Ids, logits: Floats, sampling: Sampling, answer: list[int]) -> dict[int, float]:
    data: Any = (llama.llama_token_data * len(ids))()
    for place, (token_id, logit) in enumerate(zip(ids, logits, strict=True)):
        data[place].id, data[place].logit = int(token_id), float(logit)
    candidates: Any = llama.llama_token_data_array(data, len(ids), -1, False)
    chain = chain_of(sampling, answer)
    llama.llama_sampler_apply(chain, ctypes.byref(candidates))
    llama.llama_sampler_free(chain)
    return {candidates.data[place].id: candidates.data[place].p for place in range(candidates.size)}


@untimed
@given(st.integers(0, 1000), samplings, answers)
def test_the_tokens_left_and_their_probabilities_are_those_of_llama_cpp(
    seed: int, sampling: Sampling, answer: list[int]
) -> None:
    ids, logits = some_logits(seed)
    top = rule.num_candidates(sampling)
    lowered = rule.penalize(ids[:top], logits[:top], sampling=sampling, recent_ids=answer[-64:])
    left, shares = rule.narrow(ids[:top], lowered, sampling=sampling)
    expected = narrowed_by_llama(ids, logits, sampling, answer)
    found = dict(zip(left.tolist(), shares.tolist(), strict=True))
    # In float32 the last token of a nucleus may fall on the other side of its border.
    assert sum(expected.get(token_id, 0.0) for token_id in expected.keys() ^ found.keys()) < 1e-2
    if expected.keys() == found.keys():
        assert found == pytest.approx(expected, abs=1e-5)


@untimed
@given(st.integers(0, 1000), samplings, answers)
def test_a_choice_is_one_of_the_likeliest_and_always_the_same(
    seed: int, sampling: Sampling, answer: list[int]
) -> None:
    ids, logits = some_logits(seed)
    chosen = rule.choose(ids, logits, sampling=sampling, answer_ids=answer)
    assert chosen in ids[: rule.num_candidates(sampling)]
    assert rule.choose(ids, logits, sampling=sampling, answer_ids=answer) == chosen


@untimed
@given(st.integers(0, 1000), answers)
def test_greedy_takes_the_likeliest_after_the_penalties(seed: int, answer: list[int]) -> None:
    ids, logits = some_logits(seed)
    plain = Sampling(temperature=0.0, repetition_penalty=1.0)
    assert rule.choose(ids, logits, sampling=plain, answer_ids=answer) == ids[0]
    averse = Sampling(temperature=0.0, repetition_penalty=1.0, presence_penalty=2.0)
    lowered = [logit - 2.0 * (token_id in answer[-64:]) for token_id, logit in zip(ids, logits, strict=True)]
    assert rule.choose(ids, logits, sampling=averse, answer_ids=answer) == ids[:40][np.argmax(lowered[:40])]


@untimed
@given(st.integers(0, 1000), samplings, answers, st.sets(st.integers(1, VOCAB - 1), max_size=VOCAB - 2))
def test_what_is_forbidden_is_not_chosen(
    seed: int, sampling: Sampling, answer: list[int], places: set[int]
) -> None:
    ids, logits = some_logits(seed)
    logits = logits.astype(np.float64)
    logits[list(places)] = -np.inf
    order = np.argsort(-logits, kind="stable")
    chosen = rule.choose(ids[order], logits[order], sampling=sampling, answer_ids=answer)
    assert chosen not in {int(ids[place]) for place in places}


@untimed
@given(st.integers(0, 1000), st.floats(0.0, 0.999))
def test_a_nucleus_is_the_smallest_that_is_likely_enough(seed: int, top_p: float) -> None:
    logits = some_logits(seed)[1].astype(np.float64)
    num = rule.num_in_nucleus(logits, top_p)
    shares = rule.softmax(logits)
    assert shares[:num].sum() > top_p - 1e-9
    assert num == 1 or shares[: num - 1].sum() < top_p + 1e-9


@untimed
@given(st.integers(0, 1000), st.floats(0.0, 1.0))
def test_min_p_counts_from_the_likeliest(seed: int, min_p: float) -> None:
    _, logits = some_logits(seed)
    num = rule.num_above(logits, min_p)
    shares = rule.softmax(logits.astype(np.float64))
    assert (shares[:num] >= min_p * shares[0] * (1 - 1e-6)).all()
    assert (shares[num:] <= min_p * shares[0] * (1 + 1e-6)).all()


@untimed
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**15))
def test_a_draw_depends_on_seed_and_place_only(seed: int, n: int) -> None:
    number = rule.uniform(seed, n)
    assert 0 <= number < 1
    assert number == rule.uniform(seed, n)
    assert number not in (rule.uniform(seed, n + 1), rule.uniform((seed + 1) % 2**32, n))


def test_tokens_come_as_often_as_they_are_likely() -> None:
    ids, logits = np.arange(4), np.log(np.array([0.5, 0.25, 0.15, 0.1]))
    drawn = Counter(
        rule.choose(ids, logits, sampling=PLAIN, answer_ids=range(10, 10 + n)) for n in range(8000)
    )
    assert [drawn[token_id] / 8000 for token_id in range(4)] == pytest.approx(
        [0.5, 0.25, 0.15, 0.1], abs=0.02
    )


@pytest.mark.parametrize(("number", "index"), [(0.0, 0), (0.49, 0), (0.5, 1), (0.999, 2), (1.0, 2)])
def test_a_number_falls_into_one_share(number: float, index: int) -> None:
    assert rule.pick(np.array([0.5, 0.25, 0.25]), number) == index


def test_what_was_said_long_ago_is_not_penalised() -> None:
    ids, logits = np.array([7, 3]), np.array([1.0, 0.9])
    averse = Sampling(temperature=0.0, presence_penalty=2.0)
    assert rule.choose(ids, logits, sampling=averse, answer_ids=[7] + [1] * 63) == 3
    assert rule.choose(ids, logits, sampling=averse, answer_ids=[7] + [1] * 64) == 7


def test_a_term_pulls_the_longest_token_that_goes_on_with_it() -> None:
    pieces = {b"l": 1, b"li": 2, b"lip": 3, b"x": 4}
    found = rule.pulled([Pull(b"lips", 0.5), Pull(b"l", 1.0)], pieces, longest_piece=3)
    assert found == {1: TERM_PULL, 3: TERM_PULL / 2}


def test_no_term_is_begun_with_a_letter_or_two() -> None:
    pieces = {b"l": 1, b"li": 2, b" li": 3, b" lip": 4}
    assert rule.pulled([Pull(b"lips", 0.5, is_start=True)], pieces, longest_piece=4) == {}
    assert rule.pulled([Pull(b" lips", 0.5, is_start=True)], pieces, longest_piece=4) == {4: TERM_PULL / 2}
