"""One request's decoder settings as a chain of llama.cpp's samplers."""

import json
import struct
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from llama_cpp import llama_cpp as llama
from llama_cpp.llama_grammar import json_schema_to_gbnf

from inference.errors import InvalidRequest
from inference.types import Sampling

_MAX_TOP_K = 1000
_PENALTY_WINDOW = 64  # tokens of the answer that the repetition penalty looks back on


class Sampler:
    """One request's decoder settings. Top-k comes early: what follows sees <= 1000 candidates.

    Draw n depends on (seed, n) and on nothing else, so a draft that another engine process
    resumes goes on with the very tokens that the first would have drawn.
    """

    def __init__(self, sampling: Sampling, vocab: Any, answer_ids: list[int]) -> None:
        self._seed = sampling.seed
        self._is_greedy = sampling.temperature == 0
        self._chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        for stage in self._stages(sampling, vocab):
            llama.llama_sampler_chain_add(self._chain, stage)
        self._end = llama.llama_sampler_chain_n(self._chain)
        for token_id in answer_ids:
            llama.llama_sampler_accept(self._chain, token_id)
        llama.llama_sampler_chain_add(self._chain, llama.llama_sampler_init_greedy())

    def _stages(self, sampling: Sampling, vocab: Any) -> Iterable[Any]:
        if grammar := grammar_of(sampling):
            yield grammar_stage(vocab, grammar)
        yield llama.llama_sampler_init_top_k(sampling.top_k or _MAX_TOP_K)
        penalties = (sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty)
        if penalties != (1.0, 0.0, 0.0):
            num_vocab = llama.llama_vocab_n_tokens(vocab)
            yield llama.llama_sampler_init_penalties(num_vocab, _PENALTY_WINDOW, *penalties)
        if not self._is_greedy:
            yield llama.llama_sampler_init_top_p(sampling.top_p, 1)
            yield llama.llama_sampler_init_min_p(sampling.min_p, 1)
            yield llama.llama_sampler_init_temp(sampling.temperature)

    def draw(self, context: Any, index: int, n: int) -> int:
        """Sample from the logits of one batch row; `n` counts the tokens of the answer so far."""
        if not self._is_greedy:
            llama.llama_sampler_free(llama.llama_sampler_chain_remove(self._chain, self._end))
            dist = llama.llama_sampler_init_dist(_draw_seed(self._seed, n))
            llama.llama_sampler_chain_add(self._chain, dist)
        return int(llama.llama_sampler_sample(self._chain, context, index))

    def close(self) -> None:
        llama.llama_sampler_free(self._chain)


def grammar_of(sampling: Sampling) -> str:
    """The grammar that an answer has to follow, in GBNF. Raises InvalidRequest for a bad schema."""
    if not sampling.json_schema:
        return sampling.grammar
    try:
        schema = json.loads(sampling.json_schema)
        _refuse_remote(schema)
        return str(json_schema_to_gbnf(sampling.json_schema))
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError, RecursionError) as error:
        raise InvalidRequest(f"json_schema cannot be followed ({error}); simplify it") from error


def _refuse_remote(schema: Any) -> None:
    """A schema comes from outside: what it refers to must stand in it."""
    children = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    if isinstance(schema, dict) and not str(schema.get("$ref", "#")).startswith("#"):
        raise ValueError(f"it refers to {schema['$ref']}")
    for child in children:
        _refuse_remote(child)


def grammar_stage(vocab: Any, grammar: str) -> Any:
    """A sampler that follows the grammar, to be freed by the caller. Raises InvalidRequest."""
    stage = llama.llama_sampler_init_grammar(vocab, grammar.encode(), b"root")
    if not stage:
        raise InvalidRequest("the grammar cannot be read: it needs GBNF with a rule named root")
    return stage


def _draw_seed(seed: int, n: int) -> int:
    digest = blake2b(struct.pack("<II", seed, n), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1  # 2**32 - 1 would mean "random" to llama.cpp
