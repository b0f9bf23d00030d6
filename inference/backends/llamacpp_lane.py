"""A `llama_context` on the shared weights: KV cells of its own, and at most one adapter."""

import ctypes
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as llama

from inference.backends.llamacpp_sampler import Sampler
from inference.engine.scheduler import Row
from inference.engine.sequence import Sequence

BATCH_TOKENS = 512


class LlamaLane:
    """Drafts of different lanes never share a forward pass; switching between lanes costs nothing."""

    def __init__(self, model: Any, params: Any) -> None:
        """Raises MemoryError when there is no room for the KV cells."""
        self.context = llama.llama_init_from_model(model, params)
        if not self.context:
            raise MemoryError(f"no memory for {params.n_ctx} KV cells; set a smaller context length")
        self._memory = llama.llama_get_memory(self.context)
        self._vocab = llama.llama_model_get_vocab(model)
        self._lora: Any = None
        self._samplers: dict[int, Sampler] = {}

    def set_adapter(self, lora: Any) -> None:
        loras, scales = (llama.llama_adapter_lora_p_ctypes * 1)(lora), (ctypes.c_float * 1)(1.0)
        llama.llama_set_adapters_lora(self.context, loras, 1, scales)
        self._lora = lora

    def sampler(self, sequence: Sequence) -> Sampler:
        if sequence.slot not in self._samplers:
            answer_ids = sequence.ids[sequence.num_prompt :]
            self._samplers[sequence.slot] = Sampler(sequence.request.sampling, self._vocab, answer_ids)
        return self._samplers[sequence.slot]

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Let `target` share the first cells of `source`; what it held before is forgotten."""
        self.free(target)
        llama.llama_memory_seq_cp(self._memory, source, target, 0, num_tokens)

    def save(self, slot: int) -> bytes:
        """What the cells of a slot hold, in llama.cpp's own format."""
        size = llama.llama_state_seq_get_size(self.context, slot)
        state = np.empty(size, np.uint8)
        written = llama.llama_state_seq_get_data(self.context, _pointer(state), size, slot)
        return state[:written].tobytes()

    def restore(self, slot: int, state: bytes) -> bool:
        """Fill a slot with what `save` gave; False when it does not fit this context."""
        self.free(slot)
        content = np.frombuffer(state, np.uint8)
        return bool(llama.llama_state_seq_set_data(self.context, _pointer(content), len(state), slot))

    def rewind(self, slot: int, num_tokens: int) -> None:
        """Keep the first `num_tokens` of a slot; its sampler is made anew from what stays."""
        llama.llama_memory_seq_rm(self._memory, slot, num_tokens, -1)
        self._close_sampler(slot)

    def free(self, slot: int) -> None:
        llama.llama_memory_seq_rm(self._memory, slot, -1, -1)
        self._close_sampler(slot)

    def synchronize(self) -> None:
        """Wait until the last pass is done."""
        llama.llama_synchronize(self.context)

    def clear(self) -> None:
        """Forget everything, the adapter as well; the lane is as good as a new one."""
        llama.llama_memory_clear(self._memory, False)
        for slot in list(self._samplers):
            self._close_sampler(slot)
        llama.llama_set_adapters_lora(self.context, None, 0, None)
        if self._lora:  # only now: the context computed with its weights
            llama.llama_adapter_lora_free(self._lora)
            self._lora = None

    def _close_sampler(self, slot: int) -> None:
        if sampler := self._samplers.pop(slot, None):
            sampler.close()


class Batch:
    """The one batch of a process, written anew for every pass."""

    def __init__(self) -> None:
        self._batch = llama.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._size = 0

    def clear(self) -> None:
        self._size = 0

    def add(self, token_id: int, *, position: int, slot: int, has_logits: bool) -> int:
        """The index at which logits of this token can be read after the pass."""
        batch, index = self._batch, self._size
        batch.token[index] = token_id
        batch.pos[index] = position
        batch.n_seq_id[index] = 1
        batch.seq_id[index][0] = slot
        batch.logits[index] = has_logits
        self._size += 1
        return index

    def add_row(self, row: Row) -> int:
        """The tokens of a row; only the last may have logits. Its index comes back."""
        first = row.sequence.num_computed
        for position, token_id in enumerate(row.token_ids, start=first):
            is_last = position == first + row.num_tokens - 1
            index = self.add(
                token_id, position=position, slot=row.sequence.slot, has_logits=is_last and row.samples
            )
        return index

    def run(self, lane: LlamaLane, *, threads: int) -> None:
        self._batch.n_tokens = self._size
        llama.llama_set_n_threads(lane.context, threads, threads)
        status = llama.llama_decode(lane.context, self._batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status} for {self._size} tokens")


def _pointer(content: Any) -> Any:
    return content.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
