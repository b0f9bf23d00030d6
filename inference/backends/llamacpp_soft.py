"""Soft prompts in llama.cpp: virtual tokens in front of every text of a lane.

They fill one slot of the lane, and all texts share its cells; a text's own tokens begin behind
them. llama.cpp knows nothing of this: prompt tuning goes in as a batch of embeddings, prefix tuning
as the saved state of a sequence whose keys and values are ours.

peft (0.21) saves either kind as one matrix, `prompt_embeddings`, with a row for each virtual token.
What an encoder makes of its parameters (p-tuning, `prefix_projection`) is computed before it is saved.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as llama
from safetensors import SafetensorError, deserialize

from inference import adapters
from inference.backends.llamacpp_lane import BATCH_TOKENS, LlamaLane
from inference.backends.prefixes import State
from inference.errors import AdapterUnavailable

Floats = npt.NDArray[np.float32]

_ARCHITECTURES = ("llama", "qwen2", "qwen3")  # those that were compared with what peft computes
_MATRIX = "prompt_embeddings"
_CELL_TYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("<f2"),
}  # GGML_TYPE_F32 and GGML_TYPE_F16


@dataclass(frozen=True)
class PromptTuning:
    """Embeddings that stand for tokens: [virtual tokens, width of the model]."""

    embeddings: Floats
    needs_flash: ClassVar[bool] = False

    @property
    def num_tokens(self) -> int:
        return len(self.embeddings)

    def fill(self, lane: LlamaLane, slot: int, *, threads: int) -> None:
        """Compute the cells of an empty slot."""
        _decode(lane, self.embeddings, slot, threads)


@dataclass(frozen=True)
class PrefixTuning:
    """Keys of every layer as the cache holds them, so rotated, then values of every layer.

    The shape is [2 * layers, virtual tokens, kv heads * head size]. It needs flash attention: only
    then llama.cpp keeps the values of a token side by side, as it does with keys.
    """

    cells: Floats
    needs_flash: ClassVar[bool] = True

    @property
    def num_tokens(self) -> int:
        return int(self.cells.shape[1])

    def fill(self, lane: LlamaLane, slot: int, *, threads: int) -> None:
        """Let llama.cpp lay out an empty slot, then put our keys and values into it.

        Raises AdapterUnavailable when the layout is not the one we know.
        """
        width = llama.llama_model_n_embd_inp(llama.llama_get_model(lane.context))
        _decode(lane, np.zeros((self.num_tokens, width), np.float32), slot, threads)
        state = with_cells(lane.save(slot), self.cells)
        if not lane.restore(slot, state) or lane.save(slot) != state:
            raise AdapterUnavailable(
                "llama.cpp does not give back the prefix that was put in, so prefix tuning cannot run "
                "here; train a LoRA or a prompt tuning"
            )


SoftPrompt = PromptTuning | PrefixTuning


def with_cells(state: State, cells: Floats) -> bytes:
    """A sequence's state with other keys and values, [2 * layers, tokens, kv heads * head size].

    llama_kv_cache::state_write_meta and state_write_data (llama.cpp 0c1e57098) write position, 1
    and slot for each cell, 0 for values that are not transposed, the number of layers; then
    one block for the keys of each layer and one for the values of each: type, bytes of a row, rows.
    What stands before is copied as it is. Raises AdapterUnavailable for any other layout.
    """
    num_blocks, num_tokens, width = cells.shape
    for number, kind in _CELL_TYPES.items():
        block = np.dtype([("type", "<i4"), ("row_size", "<u8"), ("rows", kind, (num_tokens, width))])
        facts = np.dtype([("cells", "<i4", (num_tokens, 3)), ("is_transposed", "<u4"), ("num_layers", "<u4")])
        start = len(state) - num_blocks * block.itemsize
        if start < facts.itemsize:
            continue
        known = np.frombuffer(state[start - facts.itemsize : start], facts)[0]
        blocks = np.frombuffer(state[start:], block).copy()
        is_as_known = (
            (known["cells"][:, 0] == np.arange(num_tokens)).all()
            and (known["cells"][:, 1] == 1).all()
            and (known["is_transposed"], 2 * known["num_layers"]) == (0, num_blocks)
            and (blocks["type"] == number).all()
            and (blocks["row_size"] == width * kind.itemsize).all()
        )
        if is_as_known:
            blocks["rows"] = _rounded(cells, kind)
            return bytes(state[:start]) + blocks.tobytes()
    raise AdapterUnavailable(
        "this llama.cpp lays its cells out in a way that prefix tuning does not know; "
        "train a LoRA or a prompt tuning"
    )


def _rounded(cells: Floats, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):
        rounded = cells.astype(kind)
    if not np.isfinite(rounded).all():
        raise AdapterUnavailable("the prefix has values that do not fit into 16-bit floats; train it again")
    return rounded


def _decode(lane: LlamaLane, embeddings: Floats, slot: int, threads: int) -> None:
    """Compute cells for [tokens, width of the model], from position 0 on."""
    num_tokens, width = embeddings.shape
    llama.llama_set_n_threads(lane.context, threads, threads)
    batch = llama.llama_batch_init(min(num_tokens, BATCH_TOKENS), width, 1)
    try:
        for start in range(0, num_tokens, BATCH_TOKENS):
            part = embeddings[start : start + BATCH_TOKENS]
            _fill(batch, part, start, slot)
            if status := llama.llama_decode(lane.context, batch):
                raise RuntimeError(f"llama_decode returned {status} for {len(part)} embeddings")
    finally:
        llama.llama_batch_free(batch)


def _fill(batch: Any, embeddings: Floats, start: int, slot: int) -> None:
    batch.n_tokens = len(embeddings)
    np.ctypeslib.as_array(batch.embd, embeddings.shape)[:] = embeddings
    for index in range(len(embeddings)):
        batch.pos[index] = start + index
        batch.n_seq_id[index] = 1
        batch.seq_id[index][0] = slot
        batch.logits[index] = False


# --- the folder ----------------------------------------------------------------------------------


def read_soft_prompt(folder: Path, model: Any) -> SoftPrompt:
    """Read a checked folder. Raises AdapterUnavailable for what does not fit the model."""
    config = adapters.read_config(folder)
    is_prefix = adapters.kind_of(config) == adapters.PREFIX_TUNING
    architecture = _metadata(model, "general.architecture")
    if architecture not in _ARCHITECTURES:
        raise AdapterUnavailable(
            f"soft prompts run on the architectures {', '.join(_ARCHITECTURES)} and not on "
            f"{architecture}; train a LoRA"
        )
    shape = _prefix_shape(model) if is_prefix else {"width": llama.llama_model_n_embd_inp(model)}
    _check_fits(folder, _given_prefix_shape(config) if is_prefix else _given_width(config), shape)
    matrix = _read_matrix(folder / adapters.WEIGHTS_NAME)
    expected = (adapters.num_virtual_tokens(config), _num_columns(shape))
    if matrix.shape != expected:
        raise AdapterUnavailable(
            f"the weights in {folder} are {matrix.shape} numbers where its config tells {expected}; "
            "save the adapter again"
        )
    return PrefixTuning(_cells(matrix, model, shape)) if is_prefix else PromptTuning(matrix)


def _check_fits(folder: Path, given: dict[str, int], wanted: dict[str, int]) -> None:
    differences = [
        f"{name}: {given[name]}, not {number}" for name, number in wanted.items() if given[name] != number
    ]
    if differences:
        raise AdapterUnavailable(
            f"the soft prompt in {folder} was made for another model ({'; '.join(differences)}); "
            "train it again on this one"
        )


def _prefix_shape(model: Any) -> dict[str, int]:
    key_length = _metadata(model, f"{_metadata(model, 'general.architecture')}.attention.key_length")
    return {
        "layers": llama.llama_model_n_layer(model),
        "kv heads": llama.llama_model_n_head_kv(model),
        "head size": int(key_length or llama.llama_model_n_embd(model) // llama.llama_model_n_head(model)),
    }


def _given_prefix_shape(config: dict[str, Any]) -> dict[str, int]:
    """peft notes heads and width of keys as `num_attention_heads` and `token_dim`."""
    heads = _number(config, "num_attention_heads")
    head_size = _number(config, "token_dim") // heads
    return {"layers": _number(config, "num_layers"), "kv heads": heads, "head size": head_size}


def _given_width(config: dict[str, Any]) -> dict[str, int]:
    return {"width": _number(config, "token_dim")}


def _num_columns(shape: dict[str, int]) -> int:
    return shape.get("width") or 2 * shape["layers"] * shape["kv heads"] * shape["head size"]


def _cells(matrix: Floats, model: Any, shape: dict[str, int]) -> Floats:
    """A row of peft is [layers, key and value, kv heads, head size] (PeftModel.get_prompt).

    Where llama.cpp rotates pairs that stand side by side (`llama`), the halves of a key do so too.
    """
    rows = matrix.reshape(-1, shape["layers"], 2, shape["kv heads"], shape["head size"])
    keys, values = rows.transpose(2, 1, 0, 3, 4)
    if llama.llama_model_rope_type(model) == llama.LLAMA_ROPE_TYPE_NORM:
        keys = keys.reshape(*keys.shape[:-1], 2, -1).swapaxes(-1, -2)
    blocks = [part.reshape(shape["layers"], len(matrix), -1) for part in (keys, values)]
    return np.concatenate(blocks)


def _number(config: dict[str, Any], name: str) -> int:
    number = config.get(name)
    if not isinstance(number, int) or number < 1:
        raise AdapterUnavailable(
            f"{name} in the config of a soft prompt must be 1 or more, not {number!r}; save the adapter again"
        )
    return number


def _read_matrix(path: Path) -> Floats:
    """With numpy alone: the process that runs llama.cpp loads no torch."""
    try:
        tensor = dict(deserialize(path.read_bytes()))[_MATRIX]  # type: ignore[no-untyped-call]
        matrix = _as_float32(tensor["data"], tensor["dtype"]).reshape(tensor["shape"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise AdapterUnavailable(f"{path} holds no soft prompt ({error}); save the adapter again") from error
    if not np.isfinite(matrix).all():
        raise AdapterUnavailable(f"{path} holds values that are no numbers; train the adapter again")
    return matrix


def _as_float32(data: bytes, kind: str) -> Floats:
    if kind == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[kind]).astype(np.float32)


def _metadata(model: Any, key: str) -> str:
    """Empty where the file says nothing."""
    buffer = ctypes.create_string_buffer(128)
    length = llama.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return buffer.value.decode() if length >= 0 else ""
