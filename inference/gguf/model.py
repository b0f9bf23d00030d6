"""A Hugging Face folder to one GGUF file."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from llama_cpp import llama_cpp as llama
from safetensors import safe_open

from inference.errors import ModelUnavailable
from inference.gguf.base import Base, read_base
from inference.gguf.files import Array, as_f16, finish
from inference.gguf.quantize import PLAIN_TYPES, check_types, is_quantized, quantize
from inference.gguf.tokenizer import Vocabulary, read_vocabulary


def export_model(hf_dir: Path, out: Path, *, quantization: str = "F16", attention: str | None = None) -> Path:
    """Write `out` from a folder with config.json, *.safetensors and tokenizer.json.

    `attention` keeps the four attention matrices at a finer type than `quantization`. The file
    appears whole or not at all. Raises ModelUnavailable if the family, the tokenizer or a
    tensor has no exact counterpart.
    """
    check_types(quantization, attention)
    base = read_base(hf_dir)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        vocabulary = read_vocabulary(hf_dir, base, Path(scratch))
        finished = plain = Path(scratch) / "plain.gguf"
        _write_model(base, vocabulary, plain, "F16" if is_quantized(quantization) else quantization)
        if is_quantized(quantization):
            finished = Path(scratch) / "finished.gguf"
            quantize(plain, finished, quantization, attention=attention)
        _check_loads(finished, hf_dir)
        os.replace(finished, out)
    return out


def _write_model(base: Base, vocabulary: Vocabulary, path: Path, kind: str) -> None:
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[base.arch])
    writer.add_name(base.folder.name)
    writer.add_file_type(PLAIN_TYPES[kind])
    _add_shape(writer, base)
    _add_rope(writer, base)
    _add_window_and_caps(writer, base)
    vocabulary.write(writer)
    for hf_name, weights in _read_weights(base):
        name = base.tensor_name(hf_name)
        weights = base.convert(name, weights)
        is_matrix = weights.ndim > 1 and kind == "F16"
        writer.add_tensor(name, as_f16(weights, name) if is_matrix else weights)
    finish(writer)


def _add_shape(writer: gguf.GGUFWriter, base: Base) -> None:
    config = base.config
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(base.num_layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(base.num_heads)
    writer.add_head_count_kv(base.num_kv_heads)
    writer.add_key_length(base.head_dim)
    writer.add_value_length(base.head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _add_rope(writer: gguf.GGUFWriter, base: Base) -> None:
    rope = base.rope
    writer.add_rope_dimension_count(base.head_dim)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if rope.get("rope_type") == "llama3":
        name = f"{gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.ROPE_FREQS]}.weight"
        writer.add_tensor(name, _llama3_factors(base))


def _llama3_factors(base: Base) -> Array:
    """By how much Llama 3.1 slows each frequency down (transformers' _compute_llama3_parameters)."""
    rope, size = base.rope, base.head_dim
    wavelengths = 2 * np.pi * float(rope["rope_theta"]) ** (np.arange(0, size, 2) / size)
    turns = float(rope["original_max_position_embeddings"]) / wavelengths
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    share = np.clip((turns - low) / (high - low), 0, 1)  # 1 keeps the frequency, 0 divides it by the factor
    factors: Array = 1 / (share + (1 - share) / float(rope["factor"]))
    return factors.astype(np.float32)


def _add_window_and_caps(writer: gguf.GGUFWriter, base: Base) -> None:
    """Keys that only Gemma 2 and 3 have."""
    config = base.config
    if any(base.sliding_layers) and base.is_gemma:
        writer.add_sliding_window(config["sliding_window"])
        writer.add_sliding_window_pattern(base.sliding_layers)
        writer.add_rope_freq_base_swa(float(base.local_rope["rope_theta"]))
    if cap := config.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(cap)
    if cap := config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(cap)


def _read_weights(base: Base) -> Iterator[tuple[str, Array]]:
    """Tensors as float32, in the order of their names."""
    files = sorted(base.folder.glob("*.safetensors"))
    if not files:
        raise ModelUnavailable(f"{base.folder} has no *.safetensors file; convert the weights first")
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in sorted(tensors.keys()):
                is_copy = name == "lm_head.weight" and base.is_tied
                if not is_copy and not name.endswith("rotary_emb.inv_freq"):
                    yield name, tensors.get_tensor(name).float().numpy()


def _check_loads(path: Path, origin: Path) -> None:
    """A file that llama.cpp turns down is found out here and not when the first draft is due."""
    model = llama.llama_model_load_from_file(os.fsencode(path), llama.llama_model_default_params())
    if not model:
        raise ModelUnavailable(f"llama.cpp does not load the export of {origin}; its log says why")
    llama.llama_model_free(model)
