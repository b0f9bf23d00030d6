"""transformers and peft: for GPUs, and for adapters that GGUF cannot carry.

One model computes for all lanes, with the adapter of the lane switched on, or none. A lane has KV cells
for as many tokens as the context setting says, and a table of which cell holds which token of which
slot; so sequences of any length join and leave at every step, none is moved when others go, and a
beginning that many prompts have in common is there once.
"""

import importlib.util
import re
import warnings
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.utils.logging import disable_progress_bar

from inference import adapters
from inference.backends import Sampled
from inference.backends.sampling import choose, num_candidates, pulled
from inference.chat import END_OF_TURN, prompt_ids
from inference.engine.costs import UNMEASURED
from inference.engine.lanes import Copy
from inference.engine.scheduler import Parked, Row, Step
from inference.engine.sequence import Sequence
from inference.engine.wanted import END_PULL
from inference.errors import AdapterUnavailable, InvalidRequest, ModelUnavailable
from inference.models import ResolvedModel
from inference.types import AdapterRef, ModelInfo, Request, TokenLogprobs

_CONFIG_ERRORS = (OSError, ValueError, TypeError, KeyError, AttributeError, StrictDataclassError)
_LOAD_ERRORS = (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError, SafetensorError)
_FULL_ATTENTION = {"full_attention", "sliding_attention"}  # a window longer than the context hides nothing
_HARMLESS_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # PiSSA and others shift the base
_BITS = {"4": "NF4", "8": "INT8"}


class TorchRunner:
    """Implements `inference.backends.Runner`."""

    costs = UNMEASURED
    max_prefixes = 16

    def __init__(self, model: ResolvedModel, *, n_ctx: int, max_sequences: int, threads: int | None) -> None:
        if threads:
            torch.set_num_threads(threads)
        bits = _read_bits(model.options)
        config = _read_config(model.path, n_ctx)
        self._vocabulary = _Vocabulary(model.path, size=config.vocab_size)
        self._model = _load_model(model.path, bits)
        self._adapters = _Adapters(self._model)
        self._device = next(self._model.get_input_embeddings().parameters()).device
        self._num_slots = max_sequences + self.max_prefixes
        self._num_cells = n_ctx
        self._lanes: dict[str | None, _Lane] = {}
        self._adapter_of: dict[str | None, str | None] = {}
        self._parked: dict[int, list[_Saved]] = {}
        self.info = ModelInfo(
            name=model.name,
            sha256=model.sha256,
            context_length=_context_length(config, n_ctx),
            backend="torch",
            quantization=_BITS[bits] if bits else "BF16" if self._model.dtype == torch.bfloat16 else "F32",
        )

    def encode(self, request: Request) -> list[int]:
        if request.sampling.grammar or request.sampling.json_schema:
            raise InvalidRequest(
                "this model runs with PyTorch, which follows no grammar and no json_schema; leave them out, "
                "or configure the model as a GGUF file: the llama.cpp backend follows them"
            )
        return prompt_ids(request.messages, self._vocabulary.tokenize)

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

    def piece(self, token_id: int) -> bytes:
        return self._vocabulary.piece(token_id)

    def is_end(self, token_id: int) -> bool:
        """End of turn, end of text, and any other control token: an answer has none inside."""
        return token_id in self._end_ids

    def rewind(self, sequence: Sequence) -> None:
        self._lanes[sequence.lane].keep(sequence.slot, sequence.num_computed)

    def free(self, sequence: Sequence) -> None:
        self._parked.pop(sequence.ticket, None)
        lane = self._lanes.get(sequence.lane)
        if lane and sequence.slot >= 0:
            lane.keep(sequence.slot, 0)

    def _lane(self, key: str | None, adapter: AdapterRef | None) -> "_Lane":
        if key not in self._lanes:
            if adapter and adapter.sha256 not in self._adapter_of.values():
                self._load_adapter(adapter)
            self._adapter_of[key] = adapter.sha256 if adapter else None
            self._lanes[key] = _Lane(
                num_layers=self._model.config.num_hidden_layers,
                num_cells=self._num_cells,
                num_slots=self._num_slots,
                context_length=self.info.context_length,
            )
        self._adapters.activate(self._adapter_of[key])
        return self._lanes[key]

    def _load_adapter(self, adapter: AdapterRef) -> None:
        folder = Path(adapter.path)
        adapters.check(folder, sha256=adapter.sha256, base_sha256=self.info.sha256)
        self._adapters.load(adapter.sha256, folder)

    def _close_lane(self, key: str | None) -> None:
        self._lanes.pop(key, None)  # a lane whose texts were cancelled before its turn never opened
        adapter = self._adapter_of.pop(key, None)
        if adapter and adapter not in self._adapter_of.values():
            self._adapters.unload(adapter)

    @torch.inference_mode()
    def _park(self, parked: Iterable[Parked]) -> None:
        for sequence, slot in ((one.sequence, one.slot) for one in parked):
            lane = self._lanes.get(sequence.lane)
            if lane and sequence.ticket not in self._parked:  # or it had no turn since it was parked before
                self._parked[sequence.ticket] = lane.save(slot)
                lane.keep(slot, 0)

    @torch.inference_mode()
    def _compute(self, lane: "_Lane", rows: Seq[Row]) -> list[Sampled]:
        for row in rows:
            if saved := self._parked.pop(row.sequence.ticket, None):
                lane.restore(row.sequence.slot, saved)
        logits: dict[Row, Tensor] = {}
        for alike in _of_like_width(rows):
            logits.update(zip(alike, self._forward(lane, alike), strict=True))
        sampling = [row for row in rows if row.samples]
        if not sampling:
            return []
        return self._draw([row.sequence for row in sampling], torch.stack([logits[row] for row in sampling]))

    def _forward(self, lane: "_Lane", rows: Seq[Row]) -> Tensor:
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

    def _draw(self, sequences: Seq[Sequence], logits: Tensor) -> list[Sampled]:
        """One token for each sequence; `logits` are [sequences, tokens of the vocabulary]."""
        own = [
            torch.log_softmax(row.double(), dim=-1) if sequence.request.sampling.logprobs else None
            for sequence, row in zip(sequences, logits, strict=True)
        ]
        for sequence, row in zip(sequences, logits, strict=True):
            self._pull(sequence, row)
        most = max(num_candidates(sequence.request.sampling) for sequence in sequences)
        # Top-k where the logits are: what follows is a few numbers, and cheaper beside the GPU.
        values, ids = (part.cpu().numpy() for part in logits.topk(min(most, logits.shape[1])))
        drawn = [
            choose(
                ids[number],
                values[number],
                sampling=sequence.request.sampling,
                answer_ids=sequence.ids[sequence.num_prompt :],
            )
            for number, sequence in enumerate(sequences)
        ]
        return [
            Sampled(token_id, None if logprobs is None else self._logprobs(sequence, token_id, logprobs))
            for sequence, token_id, logprobs in zip(sequences, drawn, own, strict=True)
        ]

    def _pull(self, sequence: Sequence, logits: Tensor) -> None:
        """Change logits [tokens of the vocabulary] by what the text must and must not say."""
        pulls, is_any_unsaid = sequence.pulls()
        if pulls:
            for token_id, pull in pulled(pulls, self._ids_of_pieces, self._longest_piece).items():
                logits[token_id] += pull
        if is_any_unsaid:
            logits[sorted(self._end_ids)] -= END_PULL
        if sequence.forbidden_ids:
            logits[sorted(sequence.forbidden_ids)] = -torch.inf

    def _logprobs(self, sequence: Sequence, token_id: int, logprobs: Tensor) -> TokenLogprobs:
        """The drawn token and the likeliest, of the model's own distribution."""
        values, ids = logprobs.topk(sequence.request.sampling.logprobs)
        return TokenLogprobs(
            text=self._shown(token_id),
            logprob=float(logprobs[token_id]),
            alternatives=tuple(zip(map(self._shown, ids.tolist()), values.tolist(), strict=True)),
        )

    def _shown(self, token_id: int) -> str:
        return self.piece(token_id).decode("utf-8", errors="replace")

    @cached_property
    def _end_ids(self) -> frozenset[int]:
        configs = (self._model.generation_config, self._model.config)
        named = [config.eos_token_id for config in configs if config and config.eos_token_id is not None]
        ids = {number for each in named for number in (each if isinstance(each, list) else [each])}
        known = range(self._vocabulary.num_tokens)
        return frozenset(number for number in ids | self._vocabulary.special_ids if number in known)

    @cached_property
    def _ids_of_pieces(self) -> dict[bytes, int]:
        texts = (number for number in range(self._vocabulary.num_tokens) if not self.is_end(number))
        return {self.piece(number): number for number in texts}

    @cached_property
    def _longest_piece(self) -> int:
        return max(map(len, self._ids_of_pieces))


class _Layout(NamedTuple):
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


class _Saved(NamedTuple):
    """What a layer held of a parked text, [tokens, kv heads, head size], in the host's memory."""

    keys: Tensor
    values: Tensor
    device: torch.device


class _Lane:
    """The KV cells of the sequences of one adapter.

    `_table` is [slots, positions] -> cell. Cell 0 belongs to nobody: padding is written there. A
    cell is free when no slot has it any more.
    """

    def __init__(self, *, num_layers: int, num_cells: int, num_slots: int, context_length: int) -> None:
        self._table = np.zeros((num_slots, context_length), dtype=np.int64)
        self._num_held = [0] * num_slots
        self._num_slots_of = np.zeros(num_cells + 1, dtype=np.int64)
        self._free = list(range(num_cells, 0, -1))
        self._layers = [_CellLayer(num_cells + 1) for _ in range(num_layers)]
        self.cache = Cache(layers=[*self._layers])

    def lay_out(self, rows: Seq[Row], device: torch.device) -> _Layout:
        """Give the new tokens cells, and tell the layers where the next forward pass finds them."""
        width = max(row.num_tokens for row in rows)
        length = max(row.sequence.num_computed + row.num_tokens for row in rows)
        ids, positions, written = np.zeros((3, len(rows), width), dtype=np.int64)
        for number, row in enumerate(rows):
            slot, begin = row.sequence.slot, row.sequence.num_computed
            end = begin + row.num_tokens
            self._hold(slot, end)
            ids[number, -row.num_tokens :] = row.token_ids
            positions[number, -row.num_tokens :] = range(begin, end)
            written[number, -row.num_tokens :] = self._table[slot, begin:end]
        read = self._table[[row.sequence.slot for row in rows], :length]
        layout = _Layout(*(torch.from_numpy(part).to(device) for part in (ids, positions, written, read)))
        for layer in self._layers:
            layer.layout = layout
        return layout

    def keep(self, slot: int, num_tokens: int) -> None:
        """Give back the cells of a slot beyond its first `num_tokens`."""
        cells = self._table[slot, num_tokens : self._num_held[slot]]
        self._num_slots_of[cells] -= 1
        self._free += cells[self._num_slots_of[cells] == 0].tolist()
        self._num_held[slot] = min(num_tokens, self._num_held[slot])

    def share(self, copy: Copy) -> None:
        """Let a slot have the first tokens of another one; nothing is computed or moved."""
        self.keep(copy.target, 0)
        cells = self._table[copy.source, : copy.num_tokens]
        self._table[copy.target, : copy.num_tokens] = cells
        self._num_slots_of[cells] += 1
        self._num_held[copy.target] = copy.num_tokens

    def save(self, slot: int) -> list[_Saved]:
        cells = torch.from_numpy(self._table[slot, : self._num_held[slot]])
        return [layer.save(cells) for layer in self._layers]

    def restore(self, slot: int, saved: list[_Saved]) -> None:
        self._hold(slot, len(saved[0].keys))
        cells = torch.from_numpy(self._table[slot, : self._num_held[slot]])
        for layer, part in zip(self._layers, saved, strict=True):
            layer.restore(cells, part)

    def _hold(self, slot: int, num_tokens: int) -> None:
        for position in range(self._num_held[slot], num_tokens):
            self._table[slot, position] = cell = self._free.pop()
            self._num_slots_of[cell] = 1
        self._num_held[slot] = max(num_tokens, self._num_held[slot])


class _CellLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Keys and values of one layer of the model, [cells, kv heads, head size], for `layout`'s rows.

    The first pass tells shapes, type and device; so any family fits, spread over any devices.
    """

    keys: Any  # a tensor from the first pass on
    values: Any
    layout: _Layout

    def __init__(self, num_cells: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._num_cells = num_cells

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

    def save(self, cells: Tensor) -> _Saved:
        device = self.keys.device
        keys, values = (held[cells.to(device)].cpu() for held in (self.keys, self.values))
        return _Saved(keys, values, device)

    def restore(self, cells: Tensor, saved: _Saved) -> None:
        keys, values = saved.keys.to(saved.device), saved.values.to(saved.device)
        if not self.is_initialized:
            self.lazy_initialization(keys.transpose(0, 1)[None], values.transpose(0, 1)[None])
        self.keys[cells.to(saved.device)] = keys
        self.values[cells.to(saved.device)] = values

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


class _Adapters:
    """LoRAs on the one base model; one of them computes, or none."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._peft: Any = None  # wraps the layers of the model while there is any adapter
        self._active: str | None = None

    def load(self, name: str, folder: Path) -> None:
        """Put a checked adapter beside the others. Raises AdapterUnavailable."""
        try:
            with _known_warnings_ignored():
                strays = self._insert(name, folder)
        except _LOAD_ERRORS as error:
            self.unload(name)
            raise AdapterUnavailable(
                f"peft cannot run the adapter in {folder} ({error}); train it again on this model"
            ) from error
        if strays:
            self.unload(name)
            raise AdapterUnavailable(
                f"the adapter in {folder} does not fit this model ({strays[0]} and {len(strays) - 1} more "
                "weights have no counterpart); train it again on this model"
            )
        self._rest()

    def unload(self, name: str) -> None:
        self._rest()
        if not self._peft or name not in self._peft.peft_config:
            return
        if len(self._peft.peft_config) == 1:  # peft cannot go on from a model without any adapter
            self._peft.base_model.unload()
            self._peft = None
            return
        with _known_warnings_ignored():
            self._peft.delete_adapter(name)
        self._rest()

    def activate(self, name: str | None) -> None:
        if name == self._active:
            return
        if name is None:
            self._rest()
            return
        self._peft.base_model.set_adapter(name, inference_mode=True)
        self._peft.base_model.enable_adapter_layers()
        self._active = name

    def _rest(self) -> None:
        """Let the bare model compute, whatever peft has switched on."""
        if self._peft:
            self._peft.base_model.disable_adapter_layers()
        self._active = None

    def _insert(self, name: str, folder: Path) -> list[str]:
        """The names of weights that only the adapter or only the model has."""
        config = PeftConfig.from_pretrained(str(folder))
        _refuse_adapter(folder, config)
        if not self._peft:
            config.inference_mode = True
            self._peft = PeftModel(self._model, config, adapter_name=name)
        result = self._peft.load_adapter(str(folder), adapter_name=name)
        return [*result.missing_keys, *result.unexpected_keys]


def _refuse_adapter(folder: Path, config: Any) -> None:
    """All reasons at once why an adapter cannot share the base model with others."""
    kind = getattr(config.peft_type, "value", config.peft_type)
    start = getattr(config, "init_lora_weights", None)
    reasons = {
        f"its kind is {kind}, not LORA": kind != "LORA",
        "it trains biases of the base (bias)": getattr(config, "bias", "none") != "none",
        "it repeats layers (layer_replication)": getattr(config, "layer_replication", None),
        "it starts at invocation tokens (alora_invocation_tokens)": getattr(
            config, "alora_invocation_tokens", None
        ),
        f"its start changed the base model (init_lora_weights: {start})": start not in _HARMLESS_STARTS,
    }
    found = [reason for reason, applies in reasons.items() if applies]
    if found:
        raise AdapterUnavailable(
            f"the adapter in {folder} cannot run beside others: {'; '.join(found)}. Train a LoRA or DoRA."
        )


@contextmanager
def _known_warnings_ignored() -> Iterator[None]:
    """peft reads an attribute that transformers 5 has renamed, and tells which adapter it falls back to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", "Adapter .* was active which is now deleted", UserWarning)
        yield


class _Vocabulary:
    """tokenizer.json as the engine needs it: ids of texts, and the exact bytes of ids."""

    def __init__(self, folder: Path, *, size: int) -> None:
        self._scaffold, self._typed = _read_tokenizer(folder), _read_tokenizer(folder)
        self._typed.encode_special_tokens = True
        added = self._typed.get_added_tokens_decoder()
        self.special_ids = frozenset(number for number, token in added.items() if token.special)
        self.num_tokens = max(self._typed.get_vocab().values()) + 1
        self._added_ids = frozenset(added)
        self._is_byte_level = _decodes_bytes(folder, self._typed)
        if self.num_tokens > size:
            raise ModelUnavailable(
                f"the tokenizer of {folder} has {self.num_tokens} tokens and the model {size}: fetch it again"
            )
        self._check_scaffold(folder)

    def tokenize(self, text: str, special: bool) -> list[int]:
        tokenizer = self._scaffold if special else self._typed
        whole = text.encode("utf-8", errors="replace").decode()  # half a surrogate pair has no UTF-8
        ids: list[int] = tokenizer.encode(whole, add_special_tokens=False).ids
        return ids

    def piece(self, token_id: int) -> bytes:
        """The bytes that a token stands for; none for control tokens and for numbers without a token."""
        token = self._typed.id_to_token(token_id)
        if token is None or token_id in self.special_ids:
            return b""
        if self._is_byte_level:
            return token.encode() if token_id in self._added_ids else bytes(_BYTES[sign] for sign in token)
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            return bytes.fromhex(token[3:5])
        return token.replace("▁", " ").encode()

    def _check_scaffold(self, folder: Path) -> None:
        for token in ("<|im_start|>", END_OF_TURN):
            ids = self.tokenize(token, True)
            if len(ids) != 1 or ids == self.tokenize(token, False):
                raise ModelUnavailable(
                    f"{folder} has no {token} token; use a model that speaks ChatML (the one that ships, "
                    "or one of the Qwen families) or put another one behind an OpenAI-compatible address"
                )


def _read_tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as error:  # tokenizers raises nothing more precise
        raise ModelUnavailable(f"{path} cannot be read ({error}); fetch the model again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _decodes_bytes(folder: Path, tokenizer: Tokenizer) -> bool:
    """Whether tokens are byte-level (GPT-2, Qwen), not SentencePiece's with ▁ for a space."""
    decoder = repr(tokenizer.decoder)
    if "ByteLevel" in decoder:
        return True
    if "ByteFallback" in decoder or "Metaspace" in decoder:
        return False
    raise ModelUnavailable(
        f"the tokens of {folder} are neither byte-level nor SentencePiece's, so their bytes are unknown; "
        "use a GGUF file of the model, or put it behind an OpenAI-compatible address"
    )


def _signs_of_bytes() -> dict[str, int]:
    """The visible sign that stands for each byte in a byte-level vocabulary (GPT-2, Radford et al. 2019)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTES = _signs_of_bytes()


def _of_like_width(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows that go into one pass: decodes, and chunks of which none is twice as long as another."""
    by_width = sorted(rows, key=lambda row: row.num_tokens)
    for _, alike in groupby(by_width, key=lambda row: row.num_tokens.bit_length()):
        yield list(alike)


def _read_bits(options: str) -> str:
    """`4` or `8` from `bits=4`, or an empty string."""
    given = dict(parse_qsl(options, keep_blank_values=True))
    bits = given.pop("bits", "")
    if options and (given or bits not in _BITS):
        raise ModelUnavailable(f"torch:FOLDER?{options} has unknown options; it takes bits=4 or bits=8")
    if bits and not importlib.util.find_spec("bitsandbytes"):
        raise ModelUnavailable(f"bits={bits} needs bitsandbytes: install it, or leave the option out")
    return bits


def _context_length(config: PreTrainedConfig, n_ctx: int) -> int:
    return min(n_ctx, getattr(config, "max_position_embeddings", n_ctx))


def _read_config(folder: Path, n_ctx: int) -> PreTrainedConfig:
    """Raises ModelUnavailable with all reasons why the model cannot be run in batches."""
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
    except _CONFIG_ERRORS as error:
        raise ModelUnavailable(f"{folder / 'config.json'} is not a valid config: {error}") from error
    reasons = [reason for reason, applies in _hindrances(config, n_ctx).items() if applies]
    if reasons:
        raise ModelUnavailable(
            f"{folder} {' and '.join(reasons)}; use a GGUF file of the model, or put it behind an "
            "OpenAI-compatible address"
        )
    return config


def _hindrances(config: PreTrainedConfig, n_ctx: int) -> dict[str, bool]:
    """What a model may be that this backend cannot run -> whether this one is."""
    family: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    name = getattr(family, "__name__", "")
    is_standard = getattr(family, "_supports_attention_backend", True)
    window = getattr(config, "sliding_window", None)
    layers = set(getattr(config, "layer_types", None) or ())
    return {
        "is no decoder that writes texts": not name or (config.architectures or [name]) != [name],
        "has layers that are no attention over the whole text": not layers <= _FULL_ATTENTION,
        f"uses sliding-window attention over {window} tokens, less than the context": (
            window is not None and window < _context_length(config, n_ctx)
        ),
        "computes its attention in a way of its own": not is_standard,
    }


def _load_model(folder: Path, bits: str) -> PreTrainedModel:
    """bfloat16 on GPUs, spread over all there are; float32 on a CPU."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    has_gpu = torch.cuda.is_available()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.bfloat16 if has_gpu else torch.float32,
            device_map="auto" if has_gpu else None,
            quantization_config=_quantization(bits) if bits else None,
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except _LOAD_ERRORS as error:
        raise ModelUnavailable(
            f"transformers cannot load {folder} ({error}); it is damaged or larger than the memory"
        ) from error
    model, info = loaded
    if info["missing_keys"]:  # they would be random numbers
        raise ModelUnavailable(f"{folder} lacks weights ({min(info['missing_keys'])}); fetch it again")
    ready: PreTrainedModel = model.eval()
    return ready


def _quantization(bits: str) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=bits == "4",
        load_in_8bit=bits == "8",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
