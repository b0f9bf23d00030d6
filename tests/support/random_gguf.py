"""Models with random weights, for tests that need the real library and no sense in the text.

The vocabulary is letters, bytes and the ChatML tokens. Control tokens and bytes are hardly ever
predicted: an answer is letters up to max_tokens.
"""

import json
from pathlib import Path
from string import ascii_lowercase

import gguf
import numpy as np
from safetensors.numpy import save_file

from inference import adapters
from inference.types import AdapterRef

_CONTROL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
_BYTES = [f"<0x{value:02X}>" for value in range(256)]
_LETTERS = ["▁", *ascii_lowercase]
_TOKENS = _CONTROL + _BYTES + _LETTERS
_NUM_SILENT = len(_CONTROL) + len(_BYTES)
_HEAD_SIZE = 64


def write_model(path: Path, *, seed: int = 0, width: int = 64, num_layers: int = 2) -> Path:
    """A Llama of `width` channels (a multiple of 64), Q8_0, whose context is 1024 tokens."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(1024)
    writer.add_embedding_length(width)
    writer.add_block_count(num_layers)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(width // _HEAD_SIZE)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    _add_tokenizer(writer)
    _add_matrix(writer, "token_embd.weight", rng.normal(size=(len(_TOKENS), width)))
    output = rng.normal(size=(len(_TOKENS), width))
    output[:_NUM_SILENT] = 0
    _add_matrix(writer, "output.weight", output)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for layer in range(num_layers):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(width, np.float32))
        for name, (rows, columns) in _matrices(width).items():
            matrix = rng.normal(size=(rows, columns)) / np.sqrt(columns)
            _add_matrix(writer, f"blk.{layer}.{name}.weight", matrix)
    _finish(writer)
    return path


def write_adapter(folder: Path, *, base_sha256: str, seed: int = 1, width: int = 64) -> AdapterRef:
    """A sealed adapter folder with a strong rank-4 LoRA on the first layer's queries and values."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    (folder / adapters.CONFIG_NAME).write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    writer = gguf.GGUFWriter(folder / adapters.GGUF_NAME, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    shapes = {"lora_a": (4, width), "lora_b": (width, 4)}
    names = [f"blk.0.{matrix}.weight.{part}" for matrix in ("attn_q", "attn_v") for part in shapes]
    weights = {name: rng.normal(size=shapes[name[-6:]]).astype(np.float16) for name in names}
    for name, matrix in weights.items():
        writer.add_tensor(name, matrix)
    _finish(writer)
    save_file(weights, folder / adapters.WEIGHTS_NAME)
    manifest = adapters.seal(folder, base_sha256=base_sha256)
    return AdapterRef(sha256=manifest.sha256, path=str(folder))


def _add_matrix(writer: gguf.GGUFWriter, name: str, matrix: np.ndarray) -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quants.quantize(matrix.astype(np.float32), kind), raw_dtype=kind)


def _matrices(width: int) -> dict[str, tuple[int, int]]:
    square = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (width, width))
    up = (2 * width, width)
    return square | {"ffn_gate": up, "ffn_up": up, "ffn_down": up[::-1]}


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    kinds = [gguf.TokenType.CONTROL] * len(_CONTROL)
    kinds += [gguf.TokenType.BYTE] * len(_BYTES) + [gguf.TokenType.NORMAL] * len(_LETTERS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(_TOKENS)
    writer.add_token_scores([0.0] * len(_TOKENS))
    writer.add_token_types(kinds)
    writer.add_add_space_prefix(False)
    writer.add_eos_token_id(_TOKENS.index("</s>"))
    writer.add_eot_token_id(_TOKENS.index("<|im_end|>"))


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
