"""KV cells of one adapter's texts, under the cache interface of transformers.

A lane has cells for as many tokens as the context setting says, and a table of which cell holds
which token of which slot; so sequences of any length join and leave at every step, none is moved
when others go, and a beginning that many prompts have in common is there once.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from inference.engine.lanes import Copy
from inference.engine.scheduler import Row


class Layout(NamedTuple):
    """Rows side by side, padded on the left, so that the last token of every row stands last.

    `ids` and `positions` are [rows, width] with 0 for padding. `written` [rows, width] are the cells
    that take the new tokens, `read` [rows, length] the cells of each row's whole text.
    """

    ids: Tensor
    positions: Tensor
    written: Tensor
    read: Tensor

    @property
    def mask(self) -> Tensor:
        """Whether a token sees a cell: [rows, 1, width, length].

        Positions say it all: beyond them stand later tokens, or cells of others. Padding sees the
        first token, because a softmax over nothing would be NaN.
        """
        cells = torch.arange(self.read.shape[1], device=self.positions.device)
        return (cells <= self.positions[..., None])[:, None]


class Saved(NamedTuple):
    """What a layer held of a parked text, [tokens, kv heads, head size], in the host's memory."""

    keys: Tensor
    values: Tensor
    device: torch.device


class TorchLane:
    """The cells of one adapter's sequences. `lora` names the adapter that peft switches on, if any.

    `_table` is [slots, positions] -> cell. Cell 0 belongs to nobody: padding is written there. A
    cell is free when no slot has it any more. The first `num_virtual` positions of every slot are
    the same cells: those of the adapter's soft prompt, beside the `num_cells` of texts.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_cells: int,
        num_slots: int,
        context_length: int,
        lora: str | None = None,
        num_virtual: int = 0,
    ) -> None:
        self.lora = lora
        self.num_virtual = num_virtual
        num_cells += num_virtual
        self._table = np.zeros((num_slots, num_virtual + context_length), dtype=np.int64)
        self._table[:, :num_virtual] = range(1, num_virtual + 1)
        self._num_held = [num_virtual] * num_slots
        self._num_slots_of = np.zeros(num_cells + 1, dtype=np.int64)
        self._free = list(range(num_cells, num_virtual, -1))
        self._layers = [_CellLayer(num_cells + 1) for _ in range(num_layers)]
        self.cache = Cache(layers=[*self._layers])

    @property
    def num_bytes(self) -> int:
        """What the cells take; 0 before the first pass."""
        return sum(layer.num_bytes for layer in self._layers)

    def lay_out(self, rows: Seq[Row], device: torch.device) -> Layout:
        """Give the new tokens cells, and tell the layers where the next forward pass finds them."""
        width = max(row.num_tokens for row in rows)
        length = self.num_virtual + max(row.sequence.num_computed + row.num_tokens for row in rows)
        ids, positions, written = np.zeros((3, len(rows), width), dtype=np.int64)
        for number, row in enumerate(rows):
            slot, begin = row.sequence.slot, self.num_virtual + row.sequence.num_computed
            end = begin + row.num_tokens
            self._hold(slot, end)
            ids[number, -row.num_tokens :] = row.token_ids
            positions[number, -row.num_tokens :] = range(begin, end)
            written[number, -row.num_tokens :] = self._table[slot, begin:end]
        read = self._table[[row.sequence.slot for row in rows], :length]
        return self._show((ids, positions, written, read), device)

    def lay_out_virtual(self, device: torch.device) -> Layout:
        """One row: the virtual tokens; what stands for them, `ids` do not tell."""
        positions = np.arange(self.num_virtual)[None]
        cells = self._table[:1, : self.num_virtual]
        return self._show((np.zeros_like(positions), positions, cells, cells), device)

    def put_virtual(self, layers: Tensor) -> None:
        """Replace what a pass has computed for virtual tokens by [layers, 2, tokens, kv heads, head size]."""
        cells = torch.arange(1, self.num_virtual + 1)
        for layer, (keys, values) in zip(self._layers, layers, strict=True):
            layer.put(cells, keys, values)

    @property
    def virtual_shape(self) -> tuple[int, ...]:
        """That of keys and values of the virtual tokens, as `put_virtual` takes them; after a pass."""
        _, *heads = self._layers[0].keys.shape
        return (len(self._layers), 2, self.num_virtual, *heads)

    def keep(self, slot: int, num_tokens: int) -> None:
        """Give back the cells of a slot beyond its first `num_tokens`."""
        num_kept = self.num_virtual + num_tokens
        cells = self._table[slot, num_kept : self._num_held[slot]]
        self._num_slots_of[cells] -= 1
        self._free += cells[self._num_slots_of[cells] == 0].tolist()
        self._num_held[slot] = min(num_kept, self._num_held[slot])

    def share(self, copy: Copy) -> None:
        """Let a slot have the first tokens of another one; nothing is computed or moved."""
        self.keep(copy.target, 0)
        end = self.num_virtual + copy.num_tokens
        cells = self._table[copy.source, self.num_virtual : end]
        self._table[copy.target, self.num_virtual : end] = cells
        self._num_slots_of[cells] += 1
        self._num_held[copy.target] = end

    def save(self, slot: int) -> list[Saved]:
        cells = self._own_cells(slot)
        return [layer.save(cells) for layer in self._layers]

    def restore(self, slot: int, saved: list[Saved]) -> None:
        self._hold(slot, self.num_virtual + len(saved[0].keys))
        cells = self._own_cells(slot)
        for layer, part in zip(self._layers, saved, strict=True):
            layer.restore(cells, part)

    def _own_cells(self, slot: int) -> Tensor:
        return torch.from_numpy(self._table[slot, self.num_virtual : self._num_held[slot]])

    def _hold(self, slot: int, num_positions: int) -> None:
        for position in range(self._num_held[slot], num_positions):
            self._table[slot, position] = cell = self._free.pop()
            self._num_slots_of[cell] = 1
        self._num_held[slot] = max(num_positions, self._num_held[slot])

    def _show(self, parts: Iterable[Any], device: torch.device) -> Layout:
        layout = Layout(*(torch.from_numpy(part).to(device) for part in parts))
        for layer in self._layers:
            layer.layout = layout
        return layout


class _CellLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of one layer of the model, [cells, kv heads, head size], for `layout`'s rows.

    The first pass tells shapes, type and device; so any family fits, spread over any devices.
    """

    keys: Any  # a tensor from the first pass on
    values: Any
    layout: Layout

    def __init__(self, num_cells: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._num_cells = num_cells

    @property
    def num_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes if self.is_initialized else 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = (self._new_cells(states) for states in (key_states, value_states))
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Take [rows, kv heads, width, head size] of new tokens; give that of whole texts."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        return self._exchange(self.keys, key_states), self._exchange(self.values, value_states)

    def save(self, cells: Tensor) -> Saved:
        device = self.keys.device
        keys, values = (held[cells.to(device)].cpu() for held in (self.keys, self.values))
        return Saved(keys, values, device)

    def restore(self, cells: Tensor, saved: Saved) -> None:
        keys, values = saved.keys.to(saved.device), saved.values.to(saved.device)
        if not self.is_initialized:
            self.lazy_initialization(keys.transpose(0, 1)[None], values.transpose(0, 1)[None])
        self.put(cells, keys, values)

    def put(self, cells: Tensor, keys: Tensor, values: Tensor) -> None:
        """Fill cells with keys and values [cells, kv heads, head size] of any type."""
        cells = cells.to(self.keys.device)
        self.keys[cells] = keys.to(self.keys)
        self.values[cells] = values.to(self.values)

    def get_seq_length(self) -> int:
        return self.layout.read.shape[1] - self.layout.ids.shape[1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.layout.read.shape[1], 0

    def get_max_length(self) -> int:
        return self._num_cells

    def _new_cells(self, states: Tensor) -> Tensor:
        _, num_heads, _, head_size = states.shape
        return states.new_zeros((self._num_cells, num_heads, head_size))

    def _exchange(self, cells: Any, states: Tensor) -> Tensor:
        cells[self.layout.written.to(cells.device)] = states.transpose(1, 2)
        found: Tensor = cells[self.layout.read.to(cells.device)]
        return found.transpose(1, 2)
