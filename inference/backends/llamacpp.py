"""llama.cpp through its C interface: many sequences in one batch, one context per adapter.

A lane is a `llama_context` on the shared weights with its own KV cells, so drafts of different
adapters never share a forward pass and switching between them costs nothing.
"""

import ctypes
import logging
import os
from collections import deque
from collections.abc import Iterable
from functools import cached_property
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as llama

from inference import adapters
from inference.backends import Sampled
from inference.backends.llamacpp_costs import measured_costs
from inference.backends.llamacpp_lane import BATCH_TOKENS, Batch, LlamaLane, kv_bytes
from inference.backends.llamacpp_sampler import grammar_of, grammar_stage
from inference.backends.llamacpp_soft import SoftPrompt, read_soft_prompt
from inference.backends.prefixes import PrefixStore
from inference.backends.sampling import pulled
from inference.backends.threads import ThreadGovernor, physical_cores, read_counters
from inference.chat import END_OF_TURN, prompt_ids
from inference.engine.lanes import Prefix
from inference.engine.scheduler import Parked, Row, Step
from inference.engine.sequence import Sequence
from inference.engine.wanted import END_PULL
from inference.errors import AdapterUnavailable, InvalidRequest, ModelUnavailable
from inference.models import ResolvedModel
from inference.sizing import lanes_within, read_memory
from inference.types import AdapterRef, ModelInfo, Request, TokenLogprobs

logger = logging.getLogger(__name__)

_GGML_LOG_ERROR = 4
_CELLS_STEP = 256  # llama.cpp allocates no fewer

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

    max_prefixes = 16
    max_guesses = 8

    def __init__(
        self, model: ResolvedModel, *, cache: Path, n_ctx: int, max_sequences: int, threads: int | None
    ) -> None:
        llama.llama_log_set(_log_callback, ctypes.c_void_p())
        llama.llama_backend_init()
        self._model = _load(model.path)
        self._vocab = llama.llama_model_get_vocab(self._model)
        self._num_vocab = llama.llama_vocab_n_tokens(self._vocab)
        self._check_scaffold(model.path)
        self.max_lanes = lanes_within(read_memory().available, lane=kv_bytes(self._model, n_ctx))
        self._num_cells, self._num_slots = n_ctx, max_sequences + self.max_prefixes
        self._threads = ThreadGovernor(threads or physical_cores(), read=read_counters)
        self._batch = Batch()
        self._prefixes = PrefixStore(cache / "prefixes")
        self._lanes: dict[str | None, LlamaLane] = {}
        self._spare: list[LlamaLane] = []
        self._virtual: dict[str, int] = {}  # by SHA-256 of the adapter
        self._parked: dict[int, memoryview] = {}
        self._indices: dict[Sequence, int] = {}  # where in the batch the logits of a row begin
        self._pieces: dict[int, bytes] = {}
        self.info = ModelInfo(
            name=model.name,
            sha256=model.sha256,
            context_length=min(n_ctx, llama.llama_model_n_ctx_train(self._model)),
            backend="llama.cpp",
            quantization=self._quantization(),
        )
        self.costs = measured_costs(
            self._lane(None, None), self._batch, cache=cache / "costs", model=model.sha256,
            max_sequences=max_sequences, threads=self._threads.num_threads,
        )  # fmt: skip

    def encode(self, request: Request) -> list[int]:
        if grammar := grammar_of(request.sampling):
            llama.llama_sampler_free(grammar_stage(self._vocab, grammar))
        ids = prompt_ids(request.messages, self._tokenize)
        self._check_room(request, len(ids))
        return ids

    def run(self, step: Step) -> list[Sampled]:
        self._park(step.parked)
        for key in step.closed:
            self._close_lane(key)
        lane = self._lane(step.lane, step.adapter)
        self._share(lane, step)
        if not step.rows:
            return []
        self._batch.clear()
        self._indices = {row.sequence: self._add_row(lane, row) for row in step.rows}
        self._batch.run(lane, threads=self._threads.look())
        return [self.draw_behind(row.sequence, 0) for row in step.rows if row.samples]

    def draw_behind(self, sequence: Sequence, number: int) -> Sampled:
        return self._draw(self._lanes[sequence.lane], sequence, self._indices[sequence] + number)

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
        self._parked.pop(sequence.ticket, None)
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

    # --- lanes -----------------------------------------------------------------------------------

    def _lane(self, key: str | None, adapter: AdapterRef | None) -> LlamaLane:
        if key not in self._lanes:
            self._lanes[key] = self._open_lane(adapter)
        return self._lanes[key]

    def _open_lane(self, adapter: AdapterRef | None) -> LlamaLane:
        if adapter is None:
            return self._blank_lane(_context_params(self._num_cells, self._num_slots))
        folder = Path(adapter.path)
        adapters.check(folder, sha256=adapter.sha256, base_sha256=self.info.sha256)
        if self._num_virtual(adapter):
            return self._open_soft(read_soft_prompt(folder, self._model))
        lora = self._load_lora(folder)
        lane = self._blank_lane(_context_params(self._num_cells, self._num_slots))
        lane.set_adapter(lora)
        return lane

    def _open_soft(self, soft: SoftPrompt) -> LlamaLane:
        """A lane with a slot and cells more than others, so that texts may be as long as elsewhere."""
        num_cells = ceil((self._num_cells + soft.num_tokens) / _CELLS_STEP) * _CELLS_STEP
        params = _context_params(num_cells, self._num_slots + 1, needs_flash=soft.needs_flash)
        lane = self._blank_lane(params)
        try:
            soft.fill(lane, lane.soft_slot, threads=self._threads.look())
        except AdapterUnavailable:
            lane.clear()
            self._spare.append(lane)
            raise
        lane.begin_with(soft.num_tokens)
        return lane

    def _blank_lane(self, params: Any) -> LlamaLane:
        """A spare context of the same kind, or a new one in place of a spare one of another kind."""
        for lane in self._spare:
            if lane.is_like(params):
                self._spare.remove(lane)
                return lane
        if self._spare:
            self._spare.pop().close()
        return LlamaLane(self._model, params)

    def _close_lane(self, key: str | None) -> None:
        """Cells are expensive to allocate: the next adapter gets the context."""
        if lane := self._lanes.pop(key, None):
            lane.clear()
            self._spare.append(lane)

    def _check_room(self, request: Request, num_prompt: int) -> None:
        """Virtual tokens take positions too, and the model was trained on so many and no more."""
        num_virtual = self._num_virtual(request.adapter)
        longest = min(num_prompt + request.sampling.max_tokens, self.info.context_length)
        most = llama.llama_model_n_ctx_train(self._model) - num_virtual
        if num_virtual and longest > most:
            raise InvalidRequest(
                f"the prompt ({num_prompt} tokens) and an answer of {request.sampling.max_tokens} do not "
                f"fit in the {most} tokens that this adapter leaves of the context; ask for a shorter text"
            )

    def _num_virtual(self, adapter: AdapterRef | None) -> int:
        """Tokens of an adapter's soft prompt, if it is one."""
        if adapter is None:
            return 0
        if adapter.sha256 not in self._virtual:
            config = adapters.read_config(Path(adapter.path))
            self._virtual[adapter.sha256] = adapters.num_virtual_tokens(config)
        return self._virtual[adapter.sha256]

    def _load_lora(self, folder: Path) -> Any:
        path = folder / adapters.GGUF_NAME
        if adapters.read_config(folder).get("use_dora") or not path.exists():
            raise AdapterUnavailable(
                f"the adapter in {folder} uses DoRA, which llama.cpp does not know; run the model with the "
                "torch backend (GALLEY_MODEL=torch:FOLDER), or train without use_dora"
            )
        lora = llama.llama_adapter_lora_init(self._model, os.fsencode(path))
        if not lora:
            raise AdapterUnavailable(f"llama.cpp cannot read {path}{_reason()}; train or export it again")
        return lora

    def _park(self, parked: Iterable[Parked]) -> None:
        for one in parked:
            if one.sequence.ticket in self._parked:
                continue  # it had no turn since it was parked before
            lane = self._lanes[one.sequence.lane]
            self._parked[one.sequence.ticket] = lane.save(one.slot)
            lane.free(one.slot)

    def _share(self, lane: LlamaLane, step: Step) -> None:
        for slot in step.dropped:
            lane.free(slot)
        for prefix in step.lookups:
            state = self._prefixes.load(self._prefix_name(lane, step.adapter, prefix))
            prefix.is_ready = state is not None and lane.restore(prefix.slot, state)
        for copy in step.copies:
            lane.copy(copy.source, copy.target, copy.num_tokens)
        for prefix in step.built:
            self._prefixes.save(self._prefix_name(lane, step.adapter, prefix), lane.save(prefix.slot))

    def _prefix_name(self, lane: LlamaLane, adapter: AdapterRef | None, prefix: Prefix) -> str:
        """Whatever the computed state depends on."""
        key = (
            llama_cpp.__version__,
            self.info.sha256,
            adapter.sha256 if adapter else None,
            lane.params.flash_attn_type,
            prefix.ids,
        )
        return sha256(repr(key).encode()).hexdigest()

    def _add_row(self, lane: LlamaLane, row: Row) -> int:
        if state := self._parked.pop(row.sequence.ticket, None):
            if not lane.restore(row.sequence.slot, state):
                raise RuntimeError("a parked text does not fit into the cells that were kept for it")
        elif row.sequence.num_computed == 0:
            lane.begin(row.sequence.slot)
        return self._batch.add_row(row, num_virtual=lane.num_virtual)

    # --- drawing ---------------------------------------------------------------------------------

    def _draw(self, lane: LlamaLane, sequence: Sequence, index: int) -> Sampled:
        num_alternatives, forbidden = sequence.request.sampling.logprobs, list(sequence.forbidden_ids)
        pulls, is_any_unsaid = sequence.pulls()
        sampler = lane.sampler(sequence)
        if not (num_alternatives or forbidden or is_any_unsaid):
            return Sampled(sampler.draw(lane.context, index, sequence.num_output))
        logits = np.ctypeslib.as_array(llama.llama_get_logits_ith(lane.context, index), (self._num_vocab,))
        own = logits.copy() if num_alternatives else logits
        for token_id, pull in pulled(pulls, self._ids_of_pieces, self._longest_piece).items():
            logits[token_id] += pull
        if is_any_unsaid:
            logits[self._end_ids] -= END_PULL
        logits[forbidden] = -np.inf
        drawn = sampler.draw(lane.context, index, sequence.num_output)
        return Sampled(drawn, self._logprobs(own, drawn, num_alternatives) if num_alternatives else None)

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


def _context_params(n_ctx: int, num_slots: int, *, needs_flash: bool = False) -> Any:
    params = llama.llama_context_default_params()
    params.n_ctx = n_ctx
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    params.n_seq_max = num_slots
    params.kv_unified = True
    if needs_flash:
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
    elif not llama.llama_supports_gpu_offload():
        # On a CPU flash attention walks every cell of every sequence for each row: the model that
        # ships needs 8.4 ms for 8 rows with it and 4.7 ms without (one thread, 150-token answers).
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return params
