"""A `llama_context` on the shared weights: KV cells of its own, and at most one adapter.

With a soft prompt, the lane's last slot holds virtual tokens that every other slot begins with.
Positions of llama.cpp count them; what the engine counts begins behind them.
"""

import ctypes
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as llama

from inference.backends.llamacpp_sampler import Sampler
from inference.backends.prefixes import State
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
        self.params = params
        self._lora: Any = None
        self.num_virtual = 0
        self._samplers: dict[int, Sampler] = {}

    def set_adapter(self, lora: Any) -> None:
        loras, scales = (llama.llama_adapter_lora_p_ctypes * 1)(lora), (ctypes.c_float * 1)(1.0)
        llama.llama_set_adapters_lora(self.context, loras, 1, scales)
        self._lora = lora

    @property
    def soft_slot(self) -> int:
        return int(self.params.n_seq_max) - 1

    def begin_with(self, num_virtual: int) -> None:
        """From now on every slot begins with the tokens of the soft slot, which is filled."""
        self.num_virtual = num_virtual

    def is_like(self, params: Any) -> bool:
        """Whether the context was made with such params."""
        names = ("n_ctx", "n_seq_max", "flash_attn_type")
        return all(getattr(self.params, name) == getattr(params, name) for name in names)

    def begin(self, slot: int) -> None:
        """Called before the first token of a text; the soft prompt's cells are shared, not copied."""
        if self.num_virtual:
            llama.llama_memory_seq_rm(self._memory, slot, -1, -1)
            self._attach_virtual(slot)

    def sampler(self, sequence: Sequence) -> Sampler:
        if sequence.slot not in self._samplers:
            answer_ids = sequence.ids[sequence.num_prompt :]
            self._samplers[sequence.slot] = Sampler(sequence.request.sampling, self._vocab, answer_ids)
        return self._samplers[sequence.slot]

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Let `target` share the first cells of `source`; what it held before is forgotten."""
        self.free(target)
        llama.llama_memory_seq_cp(self._memory, source, target, 0, self.num_virtual + num_tokens)

    def save(self, slot: int) -> memoryview:
        """What the cells of a slot hold, in llama.cpp's own format, without those of the soft prompt."""
        if self.num_virtual:
            llama.llama_memory_seq_rm(self._memory, slot, 0, self.num_virtual)
        size = llama.llama_state_seq_get_size(self.context, slot)
        state = np.empty(size, np.uint8)
        written = llama.llama_state_seq_get_data(self.context, _pointer(state), size, slot)
        self._attach_virtual(slot)
        return state[:written].data

    def restore(self, slot: int, state: State) -> bool:
        """Fill a slot with what `save` gave; False when it does not fit this context."""
        self.free(slot)
        content = np.frombuffer(state, np.uint8)
        if not llama.llama_state_seq_set_data(self.context, _pointer(content), content.size, slot):
            return False
        self._attach_virtual(slot)
        return True

    def rewind(self, slot: int, num_tokens: int) -> None:
        """Keep the first `num_tokens` of a slot; its sampler is made anew from what stays."""
        llama.llama_memory_seq_rm(self._memory, slot, self.num_virtual + num_tokens, -1)
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
        self.num_virtual = 0

    def close(self) -> None:
        """Give the memory back, after `clear`."""
        llama.llama_free(self.context)

    def _attach_virtual(self, slot: int) -> None:
        """To a slot that has none of them: llama.cpp counts a cell twice that it adds twice."""
        if self.num_virtual:
            llama.llama_memory_seq_cp(self._memory, self.soft_slot, slot, 0, self.num_virtual)

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

    def add_row(self, row: Row, *, num_virtual: int) -> int:
        """The tokens of a row and its guesses; where its logits begin comes back.

        Of the known tokens only the last may have logits, of the guesses each has.
        """
        first, last = self._size, self._size + row.num_tokens - 1
        for token_id in (*row.token_ids, *row.guesses):
            self.add(
                token_id,
                position=num_virtual + row.sequence.num_computed + self._size - first,
                slot=row.sequence.slot,
                has_logits=self._size >= last and row.samples,
            )
        return last

    def run(self, lane: LlamaLane, *, threads: int) -> None:
        self._batch.n_tokens = self._size
        llama.llama_set_n_threads(lane.context, threads, threads)
        status = llama.llama_decode(lane.context, self._batch)
        if status:
            raise RuntimeError(f"llama_decode returned {status} for {self._size} tokens")


def kv_bytes(model: Any, num_cells: int) -> int:
    """What the cells of one lane take, in 16-bit floats."""
    width = llama.llama_model_n_embd(model) // llama.llama_model_n_head(model)
    per_cell = llama.llama_model_n_layer(model) * llama.llama_model_n_head_kv(model) * width * 2
    return int(num_cells * per_cell * 2)


def _pointer(content: Any) -> Any:
    return content.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
