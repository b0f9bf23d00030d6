"""llama.cpp through its C interface: many sequences in one batch, one context per adapter.

A lane is a `llama_context` on the shared weights with its own KV cells, so drafts of different
adapters never share a forward pass and switching between them costs nothing.
"""

import ctypes
import json
import logging
import os
import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as llama
from llama_cpp.llama_grammar import json_schema_to_gbnf

from inference import adapters
from inference.backends import Sampled
from inference.backends.threads import ThreadGovernor, physical_cores, read_counters
from inference.chat import END_OF_TURN, prompt_ids
from inference.engine.scheduler import Row, Step
from inference.engine.sequence import Sequence
from inference.engine.wanted import END_PULL, TERM_PULL, Pull
from inference.errors import AdapterUnavailable, InvalidRequest, ModelUnavailable
from inference.models import ResolvedModel
from inference.types import AdapterRef, ModelInfo, Request, Sampling, TokenLogprobs

logger = logging.getLogger(__name__)

_BATCH_TOKENS = 512
_MAX_TOP_K = 1000
_PENALTY_WINDOW = 64  # tokens of the answer that the repetition penalty looks back on
_GGML_LOG_ERROR = 4

_last_errors: deque[str] = deque(maxlen=1)


def _forward_log(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    line = text.decode("utf-8", errors="replace").strip()
    if level == _GGML_LOG_ERROR:
        _last_errors.append(line)
        logger.error(line)
    elif line:
        logger.debug(line)


_log_callback = llama.llama_log_callback(_forward_log)  # C holds a bare pointer to it


class LlamaCppRunner:
    """Implements `inference.backends.Runner`."""

    def __init__(self, model: ResolvedModel, *, n_ctx: int, max_sequences: int, threads: int | None) -> None:
        llama.llama_log_set(_log_callback, ctypes.c_void_p())
        llama.llama_backend_init()
        self._model = _load(model.path)
        self._vocab = llama.llama_model_get_vocab(self._model)
        self._num_vocab = llama.llama_vocab_n_tokens(self._vocab)
        self._check_scaffold(model.path)
        self._context_params = _context_params(n_ctx, max_sequences)
        self._threads = ThreadGovernor(threads or physical_cores(), read=read_counters)
        self._batch = llama.llama_batch_init(_BATCH_TOKENS, 0, 1)
        self._lanes: dict[str | None, _Lane] = {}
        self._pieces: dict[int, bytes] = {}
        self.info = ModelInfo(
            name=model.name,
            sha256=model.sha256,
            context_length=min(n_ctx, llama.llama_model_n_ctx_train(self._model)),
            backend="llama.cpp",
            quantization=self._quantization(),
        )

    def encode(self, request: Request) -> list[int]:
        if grammar := grammar_of(request.sampling):
            llama.llama_sampler_free(_grammar_stage(self._vocab, grammar))
        return prompt_ids(request.messages, self._tokenize)

    def run(self, step: Step) -> list[Sampled]:
        for key in step.closed:
            self._lanes.pop(key).close()
        lane = self._lane(step.adapter)
        sampled_at = self._fill_batch(step.rows)
        num_threads = self._threads.look()
        llama.llama_set_n_threads(lane.context, num_threads, num_threads)
        status = llama.llama_decode(lane.context, self._batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status} for {self._batch.n_tokens} tokens")
        sampling = [row.sequence for row in step.rows if row.samples]
        return [
            self._draw(lane, sequence, index) for sequence, index in zip(sampling, sampled_at, strict=True)
        ]

    def piece(self, token_id: int) -> bytes:
        if token_id not in self._pieces:
            self._pieces[token_id] = self._read_piece(token_id)
        return self._pieces[token_id]

    def is_end(self, token_id: int) -> bool:
        """End of turn, end of text, and any other control token: an answer has none inside."""
        is_eog = llama.llama_vocab_is_eog(self._vocab, token_id)
        return bool(is_eog or llama.llama_vocab_is_control(self._vocab, token_id))

    def rewind(self, sequence: Sequence) -> None:
        self._lanes[sequence.lane].rewind(sequence.slot, sequence.num_computed)

    def free(self, sequence: Sequence) -> None:
        lane = self._lanes.get(sequence.lane)
        if lane and sequence.slot >= 0:
            lane.free(sequence.slot)

    def _tokenize(self, text: str, special: bool) -> list[int]:
        raw = text.encode("utf-8", errors="replace")
        ids = (llama.llama_token * (len(raw) + 1))()
        count = llama.llama_tokenize(self._vocab, raw, len(raw), ids, len(ids), False, special)
        return ids[:count]

    def _read_piece(self, token_id: int) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = llama.llama_token_to_piece(self._vocab, token_id, buffer, size, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    def _check_scaffold(self, path: Path) -> None:
        for token in ("<|im_start|>", END_OF_TURN):
            if len(self._tokenize(token, True)) != 1:
                raise ModelUnavailable(
                    f"{path} has no {token} token; use a model that speaks ChatML (the one that ships, "
                    "or one of the Qwen families) or put another one behind an OpenAI-compatible address"
                )

    def _quantization(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        llama.llama_model_desc(self._model, buffer, len(buffer))
        return buffer.value.decode().split(" ", 2)[-1]  # "qwen2 0.5B Q4_K - Medium"

    def _lane(self, adapter: AdapterRef | None) -> "_Lane":
        key = adapter.sha256 if adapter else None
        if key not in self._lanes:
            self._lanes[key] = self._open_lane(adapter)
        return self._lanes[key]

    def _open_lane(self, adapter: AdapterRef | None) -> "_Lane":
        lora = self._load_adapter(adapter) if adapter else None
        context = llama.llama_init_from_model(self._model, self._context_params)
        if not context:
            raise MemoryError(
                f"no memory for {self._context_params.n_ctx} KV cells; set a smaller context length"
            )
        lane = _Lane(context, lora)
        if lora:
            loras, scales = (llama.llama_adapter_lora_p_ctypes * 1)(lora), (ctypes.c_float * 1)(1.0)
            llama.llama_set_adapters_lora(context, loras, 1, scales)
        return lane

    def _load_adapter(self, adapter: AdapterRef) -> Any:
        folder = Path(adapter.path)
        adapters.check(folder, sha256=adapter.sha256, base_sha256=self.info.sha256)
        path = folder / adapters.GGUF_NAME
        lora = llama.llama_adapter_lora_init(self._model, os.fsencode(path))
        if not lora:
            raise AdapterUnavailable(f"llama.cpp cannot read {path}{_reason()}; train or export it again")
        return lora

    def _fill_batch(self, rows: Iterable[Row]) -> list[int]:
        """Write the rows into the one batch; the indices whose logits are sampled come back."""
        batch, index, sampled_at = self._batch, 0, []
        for row in rows:
            for offset, token_id in enumerate(row.token_ids):
                batch.token[index] = token_id
                batch.pos[index] = row.sequence.num_computed + offset
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = row.sequence.slot
                batch.logits[index] = False
                index += 1
            if row.samples:
                batch.logits[index - 1] = True
                sampled_at.append(index - 1)
        batch.n_tokens = index
        return sampled_at

    def _draw(self, lane: "_Lane", sequence: Sequence, index: int) -> Sampled:
        num_alternatives, forbidden = sequence.request.sampling.logprobs, list(sequence.forbidden_ids)
        pulls, is_any_unsaid = sequence.pulls()
        sampler = self._sampler(lane, sequence)
        if not (num_alternatives or forbidden or is_any_unsaid):
            return Sampled(sampler.draw(lane.context, index, sequence.num_output))
        logits = np.ctypeslib.as_array(llama.llama_get_logits_ith(lane.context, index), (self._num_vocab,))
        own = logits.copy() if num_alternatives else logits
        for token_id, pull in self._pulled(pulls).items():
            logits[token_id] += pull
        if is_any_unsaid:
            logits[self._end_ids] -= END_PULL
        logits[forbidden] = -np.inf
        drawn = sampler.draw(lane.context, index, sequence.num_output)
        return Sampled(drawn, self._logprobs(own, drawn, num_alternatives) if num_alternatives else None)

    def _pulled(self, pulls: Iterable[Pull]) -> dict[int, float]:
        """What is added to the logits of the tokens with which a term can go on."""
        found: dict[int, float] = {}
        for rest, strength in pulls:
            for size in range(1, min(len(rest), self._longest_piece) + 1):
                if (token_id := self._ids_of_pieces.get(rest[:size])) is not None:
                    found[token_id] = max(found.get(token_id, 0.0), strength * TERM_PULL)
        return found

    @cached_property
    def _ids_of_pieces(self) -> dict[bytes, int]:
        texts = (number for number in range(self._num_vocab) if not self.is_end(number))
        return {self.piece(number): number for number in texts}

    @cached_property
    def _longest_piece(self) -> int:
        return max(map(len, self._ids_of_pieces))

    @cached_property
    def _end_ids(self) -> list[int]:
        return [number for number in range(self._num_vocab) if self.is_end(number)]

    def _logprobs(self, logits: npt.NDArray[np.float32], token_id: int, count: int) -> TokenLogprobs:
        """The drawn token and the `count` likeliest, of the model's own distribution."""
        logits = logits.astype(np.float64)
        logits -= logits.max()
        logprobs = logits - np.log(np.exp(logits).sum())
        likeliest = np.argsort(-logprobs)[:count]
        return TokenLogprobs(
            text=self._shown(token_id),
            logprob=float(logprobs[token_id]),
            alternatives=tuple((self._shown(int(other)), float(logprobs[other])) for other in likeliest),
        )

    def _shown(self, token_id: int) -> str:
        return self.piece(token_id).decode("utf-8", errors="replace")

    def _sampler(self, lane: "_Lane", sequence: Sequence) -> "_Sampler":
        if sequence.slot not in lane.samplers:
            lane.samplers[sequence.slot] = _Sampler(
                sequence.request.sampling, self._vocab, sequence.ids[sequence.num_prompt :]
            )
        return lane.samplers[sequence.slot]


@dataclass
class _Lane:
    context: Any
    lora: Any
    samplers: dict[int, "_Sampler"] = field(default_factory=dict)

    def rewind(self, slot: int, num_tokens: int) -> None:
        """Keep the first `num_tokens` of a slot; its sampler is made anew from what stays."""
        llama.llama_memory_seq_rm(llama.llama_get_memory(self.context), slot, num_tokens, -1)
        self._close_sampler(slot)

    def free(self, slot: int) -> None:
        llama.llama_memory_seq_rm(llama.llama_get_memory(self.context), slot, -1, -1)
        self._close_sampler(slot)

    def _close_sampler(self, slot: int) -> None:
        if sampler := self.samplers.pop(slot, None):
            sampler.close()

    def close(self) -> None:
        llama.llama_free(self.context)
        if self.lora:  # only now: the context computes with its weights
            llama.llama_adapter_lora_free(self.lora)


class _Sampler:
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
            yield _grammar_stage(vocab, grammar)
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


def _grammar_stage(vocab: Any, grammar: str) -> Any:
    stage = llama.llama_sampler_init_grammar(vocab, grammar.encode(), b"root")
    if not stage:
        raise InvalidRequest("the grammar cannot be read: it needs GBNF with a rule named root")
    return stage


def _draw_seed(seed: int, n: int) -> int:
    digest = blake2b(struct.pack("<II", seed, n), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1  # 2**32 - 1 would mean "random" to llama.cpp


def _load(path: Path) -> Any:
    _last_errors.clear()
    model = llama.llama_model_load_from_file(os.fsencode(path), llama.llama_model_default_params())
    if not model:
        raise ModelUnavailable(
            f"llama.cpp cannot load {path}{_reason()}; it is damaged or of an unknown kind: fetch it again"
        )
    return model


def _reason() -> str:
    return f" ({_last_errors[-1]})" if _last_errors else ""


def _context_params(n_ctx: int, max_sequences: int) -> Any:
    params = llama.llama_context_default_params()
    params.n_ctx = n_ctx
    params.n_batch = params.n_ubatch = _BATCH_TOKENS
    params.n_seq_max = max_sequences
    params.kv_unified = True
    if not llama.llama_supports_gpu_offload():
        # On a CPU flash attention walks every cell of every sequence for each row: the model that
        # ships needs 8.4 ms for 8 rows with it and 4.7 ms without (one thread, 150-token answers).
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return params
