"""transformers and peft: for GPUs, and for adapters that GGUF cannot carry.

One model computes for all lanes, with the LoRA of the lane switched on, or none. A lane has KV
cells of its own (torch_cache), which may begin with a soft prompt (torch_soft).
"""

import time
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from functools import partial
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inference import adapters
from inference.backends import Sampled
from inference.backends.torch_adapters import TorchAdapters
from inference.backends.torch_cache import Saved, TorchLane
from inference.backends.torch_costs import blank_rows, measured_costs
from inference.backends.torch_draw import Drawer
from inference.backends.torch_load import (
    free_memory,
    load_model,
    name_of_type,
    read_bits,
    read_config,
    trained_length,
)
from inference.backends.torch_soft import fill, num_virtual_tokens, read_soft_prompt
from inference.backends.torch_vocabulary import Vocabulary
from inference.chat import prompt_ids
from inference.engine.scheduler import Parked, Row, Step
from inference.engine.sequence import Sequence
from inference.errors import InvalidRequest
from inference.models import ResolvedModel
from inference.sizing import lanes_within
from inference.types import AdapterRef, ModelInfo, Request


class TorchRunner:
    """Implements `inference.backends.Runner`."""

    max_prefixes = 16
    max_guesses = 0

    def __init__(
        self,
        model: ResolvedModel,
        *,
        n_ctx: int,
        max_sequences: int,
        threads: int | None,
        cache: Path | None = None,
    ) -> None:
        """Without a `cache` folder the costs are measured at every start."""
        if threads:
            torch.set_num_threads(threads)
        bits = read_bits(model.options)
        config = read_config(model.path, n_ctx)
        self._vocabulary = Vocabulary(model.path, size=config.vocab_size)
        self._model = load_model(model.path, bits)
        self._device = next(self._model.get_input_embeddings().parameters()).device
        self._drawer = Drawer(self._vocabulary, _eos_ids(self._model))
        self._adapters = TorchAdapters(self._model)
        self._num_slots = max_sequences + self.max_prefixes
        self._num_cells = n_ctx
        self._trained_length = trained_length(config, n_ctx)
        self._lanes: dict[str | None, TorchLane] = {}
        self._parked: dict[int, list[Saved]] = {}
        self.info = ModelInfo(
            name=model.name,
            sha256=model.sha256,
            context_length=min(n_ctx, self._trained_length),
            backend="torch",
            quantization=name_of_type(self._model, bits),
        )
        lane = self._new_lane()
        self._seconds_of(lane, blank_rows(1, max_sequences))  # gives the lane its cells
        self.max_lanes = lanes_within(free_memory(), lane=lane.num_bytes)
        self.costs = measured_costs(
            partial(self._seconds_of, lane),
            cache=cache / "costs" if cache else None,
            info=self.info,
            max_sequences=max_sequences,
        )

    def encode(self, request: Request) -> list[int]:
        if request.sampling.grammar or request.sampling.json_schema:
            raise InvalidRequest(
                "this model runs with PyTorch, which follows no grammar and no json_schema; leave them out, "
                "or configure the model as a GGUF file: the llama.cpp backend follows them"
            )
        ids = prompt_ids(request.messages, self._vocabulary.tokenize)
        if request.adapter:
            self._check_room(request, len(ids), num_virtual_tokens(Path(request.adapter.path)))
        return ids

    def run(self, step: Step) -> list[Sampled]:
        self._park(step.parked)
        for key in step.closed:
            self._close_lane(key)
        lane = self._lane(step.lane, step.adapter)
        for slot in step.dropped:
            lane.keep(slot, 0)
        for copy in step.copies:
            lane.share(copy)
        return self._compute(lane, step.rows) if step.rows else []

    def draw_behind(self, sequence: Sequence, number: int) -> Sampled:
        raise NotImplementedError("a row without guesses has one token to draw")

    def piece(self, token_id: int) -> bytes:
        return self._vocabulary.piece(token_id)

    def is_end(self, token_id: int) -> bool:
        """End of turn, end of text, and any other control token: an answer has none inside."""
        return token_id in self._drawer.end_ids

    def rewind(self, sequence: Sequence) -> None:
        self._lanes[sequence.lane].keep(sequence.slot, sequence.num_computed)

    def free(self, sequence: Sequence) -> None:
        self._parked.pop(sequence.ticket, None)
        lane = self._lanes.get(sequence.lane)
        if lane and sequence.slot >= 0:
            lane.keep(sequence.slot, 0)

    def _check_room(self, request: Request, num_prompt: int, num_virtual: int) -> None:
        """Virtual tokens take positions too, and the model was trained on so many and no more."""
        longest = min(num_prompt + request.sampling.max_tokens, self.info.context_length)
        most = self._trained_length - num_virtual
        if num_virtual and longest > most:
            raise InvalidRequest(
                f"the prompt ({num_prompt} tokens) and the answer (up to {request.sampling.max_tokens}) "
                f"do not fit in the {most} tokens that this adapter leaves; ask for a shorter text"
            )

    # --- lanes -----------------------------------------------------------------------------------

    def _lane(self, key: str | None, adapter: AdapterRef | None) -> TorchLane:
        if key not in self._lanes:
            self._lanes[key] = self._open_lane(adapter) if adapter else self._new_lane()
        lane = self._lanes[key]
        self._adapters.activate(lane.lora)
        return lane

    def _open_lane(self, adapter: AdapterRef) -> TorchLane:
        folder = Path(adapter.path)
        adapters.check(folder, sha256=adapter.sha256, base_sha256=self.info.sha256)
        if num_virtual_tokens(folder):
            soft = read_soft_prompt(folder)
            lane = self._new_lane(num_virtual=soft.num_tokens)
            self._adapters.activate(None)
            fill(lane, soft, self._model)
            return lane
        if adapter.sha256 not in self._loras_in_use:
            self._adapters.load(adapter.sha256, folder)
        return self._new_lane(lora=adapter.sha256)

    def _new_lane(self, *, lora: str | None = None, num_virtual: int = 0) -> TorchLane:
        return TorchLane(
            num_layers=self._model.config.num_hidden_layers,
            num_cells=self._num_cells,
            num_slots=self._num_slots,
            context_length=self.info.context_length,
            lora=lora,
            num_virtual=num_virtual,
        )

    def _close_lane(self, key: str | None) -> None:
        lane = self._lanes.pop(key, None)  # one whose texts were cancelled before its turn never opened
        if lane and lane.lora and lane.lora not in self._loras_in_use:
            self._adapters.unload(lane.lora)

    @property
    def _loras_in_use(self) -> set[str | None]:
        return {lane.lora for lane in self._lanes.values()}

    @torch.inference_mode()
    def _park(self, parked: Iterable[Parked]) -> None:
        for sequence, slot in ((one.sequence, one.slot) for one in parked):
            lane = self._lanes.get(sequence.lane)
            if lane and sequence.ticket not in self._parked:  # or it had no turn since it was parked before
                self._parked[sequence.ticket] = lane.save(slot)
                lane.keep(slot, 0)

    # --- passes ----------------------------------------------------------------------------------

    @torch.inference_mode()
    def _compute(self, lane: TorchLane, rows: Seq[Row]) -> list[Sampled]:
        for row in rows:
            if saved := self._parked.pop(row.sequence.ticket, None):
                lane.restore(row.sequence.slot, saved)
        logits: dict[Row, Tensor] = {}
        for alike in _of_like_width(rows):
            logits.update(zip(alike, self._forward(lane, alike), strict=True))
        sampling = [row for row in rows if row.samples]
        if not sampling:
            return []
        sequences = [row.sequence for row in sampling]
        return self._drawer.draw(sequences, torch.stack([logits[row] for row in sampling]))

    def _forward(self, lane: TorchLane, rows: Seq[Row]) -> Tensor:
        """Logits after the last token of each row: float32 [rows, tokens of the vocabulary]."""
        layout = lane.lay_out(rows, self._device)
        output = self._model(
            input_ids=layout.ids,
            position_ids=layout.positions,
            attention_mask=layout.mask,
            past_key_values=lane.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1, : self._vocabulary.num_tokens]  # a matrix may be padded
        return logits.float()

    def _seconds_of(self, lane: TorchLane, rows: Seq[Row]) -> float:
        """From the first of the rows to the last drawn token; the lane is empty afterwards."""
        began = time.perf_counter()
        self._compute(lane, rows)
        seconds = time.perf_counter() - began
        for row in rows:
            lane.keep(row.sequence.slot, 0)
        return seconds


def _of_like_width(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows that go into one pass: decodes, and chunks of which none is twice as long as another."""
    by_width = sorted(rows, key=lambda row: row.num_tokens)
    for _, alike in groupby(by_width, key=lambda row: row.num_tokens.bit_length()):
        yield list(alike)


def _eos_ids(model: PreTrainedModel) -> set[int]:
    """Ends of a text, of which a config names one or a list."""
    configs = (model.generation_config, model.config)
    named = [config.eos_token_id for config in configs if config and config.eos_token_id is not None]
    return {number for each in named for number in (each if isinstance(each, list) else [each])}
