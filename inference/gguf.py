"""Hugging Face weights, tokenizers and LoRA adapters to GGUF, checked against the originals.

Families: Llama and Mistral (one architecture for llama.cpp), Qwen2 and Qwen3. What cannot be
carried over exactly is refused with a sentence that says why.
"""

import ctypes
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as llama
from safetensors import safe_open
from tokenizers import Tokenizer

from inference.errors import AdapterUnavailable, EngineError, ModelUnavailable

Array = npt.NDArray[Any]

_ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
_PLAIN_TYPES = {"F32": gguf.LlamaFileType.ALL_F32, "F16": gguf.LlamaFileType.MOSTLY_F16}
_QUANTIZED_TYPES = {
    "Q8_0": llama.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q6_K": llama.LLAMA_FTYPE_MOSTLY_Q6_K,
    "Q4_K_M": llama.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "Q4_0": llama.LLAMA_FTYPE_MOSTLY_Q4_0,
}
QUANTIZATIONS = (*_PLAIN_TYPES, *_QUANTIZED_TYPES)

# llama.cpp knows pre-tokenizers by name only. The right name is the one that passes the probes.
_PRE_TOKENIZERS = ("qwen2", "llama-bpe", "gpt-2", "smollm", "tekken", "gpt-4o", "deepseek-llm", "default")
_PROBES = (
    "The library opens on 4 May at 10:30; tickets cost 1,250.50 euros (+3%).",
    "don't, WE'LL, it's  two  spaces\n\n\nand\ttabs \r\n   end   ",
    "Grüße aus Köln: naïve café, Œuvre, Łódź, İstanbul, ﬁn",
    "漢字とかな交じり文。你好，世界！2024年5月4日 한국어 문장",
    "Привет, мир! Γειά σου שלום مرحبا नमस्ते ไทย",
    "👩‍🚀🎉 — “quotes” … ½ ² № ℡ e\u0301 \u00a0\u200b\u2028",
    "def f(x):\n    return x**2  # comment\n<|im_start|><|im_end|><s></s>",
)


def export_model(hf_dir: Path, out: Path, *, quantization: str = "F16") -> Path:
    """Write `out` from a folder with config.json, *.safetensors and tokenizer.json.

    The file appears whole or not at all. Raises ModelUnavailable if the family, the tokenizer
    or a tensor has no exact counterpart.
    """
    if quantization not in QUANTIZATIONS:
        known = ", ".join(QUANTIZATIONS)
        raise ModelUnavailable(f"unknown quantization {quantization}; choose one of {known}")
    base = _read_base(hf_dir)
    vocabulary = _read_vocabulary(hf_dir, base)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        vocabulary.pre = _find_pre_tokenizer(vocabulary, Path(scratch))
        plain, finished = Path(scratch) / "plain.gguf", Path(scratch) / "finished.gguf"
        _write_model(base, vocabulary, plain, quantization if quantization in _PLAIN_TYPES else "F16")
        if quantization in _QUANTIZED_TYPES:
            _quantize(plain, finished, _QUANTIZED_TYPES[quantization])
        else:
            finished = plain
        _check_loads(finished, hf_dir)
        os.replace(finished, out)
    return out


def export_lora(adapter_dir: Path, base_config_dir: Path, out: Path) -> Path:
    """Write the LoRA of a PEFT folder as F16 GGUF; the scale of every module is folded into its B.

    llama.cpp has one alpha per file, so rsLoRA and rank or alpha patterns would otherwise be
    lost. Raises AdapterUnavailable for what llama.cpp cannot apply.
    """
    base = _read_base(base_config_dir)
    config = _read_json(adapter_dir / "adapter_config.json", AdapterUnavailable)
    _refuse_adapter(config)
    writer = gguf.GGUFWriter(out.with_name(f"{out.name}.part"), gguf.MODEL_ARCH_NAMES[base.arch])
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 0.0)  # 0 switches llama.cpp's own alpha / rank off
    for module, lora_a, lora_b in _read_lora(adapter_dir):
        name = base.tensor_name(f"{module}.weight", AdapterUnavailable)
        _refuse_module(module, name, base)
        scaled = lora_b * _lora_scale(config, module, rank=lora_a.shape[0])
        writer.add_tensor(f"{name}.lora_a", _as_f16(lora_a, name))
        writer.add_tensor(f"{name}.lora_b", _as_f16(base.reorder(name, scaled), name))
    _finish(writer)
    os.replace(out.with_name(f"{out.name}.part"), out)
    return out


# -- the base model --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Base:
    """A Hugging Face folder whose family we can carry over."""

    folder: Path
    config: dict[str, Any]
    arch: gguf.MODEL_ARCH

    @property
    def num_heads(self) -> int:
        return int(self.config["num_attention_heads"])

    @property
    def num_kv_heads(self) -> int:
        return int(self.config.get("num_key_value_heads") or self.num_heads)

    @property
    def head_dim(self) -> int:
        return int(self.config.get("head_dim") or self.config["hidden_size"] // self.num_heads)

    @property
    def is_tied(self) -> bool:
        return bool(self.config.get("tie_word_embeddings", False))

    @property
    def rope_theta(self) -> float:
        rope = self.config.get("rope_parameters") or {}
        return float(rope.get("rope_theta") or self.config.get("rope_theta") or 10_000.0)

    def tensor_name(self, hf_name: str, error: type[EngineError] = ModelUnavailable) -> str:
        names = gguf.get_tensor_name_map(self.arch, int(self.config["num_hidden_layers"]))
        found = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise error(f"{hf_name} has no counterpart in llama.cpp's {self.config['model_type']} models")
        return str(found)

    def reorder(self, name: str, weights: Array) -> Array:
        """Rows of Llama's Q and K as llama.cpp rotates them: pairs side by side, not half and half."""
        heads = {"attn_q": self.num_heads, "attn_k": self.num_kv_heads}.get(name.split(".")[-2])
        if self.arch is not gguf.MODEL_ARCH.LLAMA or heads is None:
            return weights
        halves = weights.reshape(heads, 2, -1, *weights.shape[1:])
        return halves.swapaxes(1, 2).reshape(weights.shape)


def _read_base(folder: Path) -> _Base:
    config = _read_json(folder / "config.json", ModelUnavailable)
    family = config.get("model_type")
    if family not in _ARCHITECTURES:
        raise ModelUnavailable(
            f"{folder} is a {family} model; {', '.join(_ARCHITECTURES)} can be exported, "
            "for others give a ready-made GGUF file"
        )
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope_type = rope.get("rope_type") or rope.get("type") or "default"
    if rope_type != "default":
        raise ModelUnavailable(f"{folder} scales its positions ({rope_type}); give a ready-made GGUF file")
    has_window = config.get("sliding_window") if family == "mistral" else config.get("use_sliding_window")
    if has_window:
        raise ModelUnavailable(f"{folder} uses a sliding window; give a ready-made GGUF file")
    return _Base(folder, config, _ARCHITECTURES[family])


def _write_model(base: _Base, vocabulary: "_Vocabulary", path: Path, quantization: str) -> None:
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[base.arch])
    config = base.config
    writer.add_name(base.folder.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(base.num_heads)
    writer.add_head_count_kv(base.num_kv_heads)
    writer.add_key_length(base.head_dim)
    writer.add_value_length(base.head_dim)
    writer.add_rope_dimension_count(base.head_dim)
    writer.add_rope_freq_base(base.rope_theta)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(_PLAIN_TYPES[quantization])
    vocabulary.write(writer)
    for hf_name, weights in _read_weights(base):
        name = base.tensor_name(hf_name)
        weights = base.reorder(name, weights)
        is_matrix = weights.ndim > 1 and quantization == "F16"
        writer.add_tensor(name, _as_f16(weights, name) if is_matrix else weights)
    _finish(writer)


def _read_weights(base: _Base) -> Iterator[tuple[str, Array]]:
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


def _as_f16(weights: Array, name: str) -> Array:
    with np.errstate(over="ignore"):
        half = weights.astype(np.float16)
    if not np.isfinite(half).all():
        raise ModelUnavailable(f"{name} has values that do not fit into 16-bit floats; export as F32")
    return half


def _check_loads(path: Path, origin: Path) -> None:
    """A file that llama.cpp turns down is found out here and not when the first draft is due."""
    model = llama.llama_model_load_from_file(os.fsencode(path), llama.llama_model_default_params())
    if not model:
        raise ModelUnavailable(f"llama.cpp does not load the export of {origin}; its log says why")
    llama.llama_model_free(model)


def _quantize(source: Path, target: Path, file_type: int) -> None:
    params = llama.llama_model_quantize_default_params()
    params.ftype = file_type
    params.nthread = os.cpu_count() or 1
    status = llama.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))
    if status:
        raise ModelUnavailable(f"llama.cpp could not quantize {source.name}; its log says why")


# -- the tokenizer ---------------------------------------------------------------------------------


@dataclass
class _Vocabulary:
    """A byte-level BPE tokenizer in the terms of GGUF."""

    original: Tokenizer
    tokens: list[str]
    types: list[int]
    merges: list[str]
    special_ids: dict[str, int]
    adds_bos: bool
    pre: str = ""

    def write(self, writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(False)
        for name, number in self.special_ids.items():
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)


def _read_vocabulary(folder: Path, base: _Base) -> _Vocabulary:
    content = _read_json(folder / "tokenizer.json", ModelUnavailable)
    model = content["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise ModelUnavailable(f"{folder} has no byte-level BPE tokenizer; give a ready-made GGUF file")
    size = int(base.config["vocab_size"])
    tokens = [f"[PAD{number}]" for number in range(size)]
    types = [int(gguf.TokenType.UNUSED)] * size
    for token, number in model["vocab"].items():
        tokens[number], types[number] = token, gguf.TokenType.NORMAL
    for added in content["added_tokens"]:
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], kind
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    original = Tokenizer.from_str(json.dumps(content))
    special_ids = _special_ids(base.config)
    adds_bos = original.encode("a").ids[:1] == [special_ids.get("bos")]
    return _Vocabulary(original, tokens, types, merges, special_ids, adds_bos)


def _special_ids(config: dict[str, Any]) -> dict[str, int]:
    """Names of GGUF -> ids; of several end tokens the first."""
    names = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}
    found = {name: config.get(key) for name, key in names.items()}
    firsts = {name: ids[0] if isinstance(ids, list) else ids for name, ids in found.items()}
    return {name: number for name, number in firsts.items() if number is not None}


def _find_pre_tokenizer(vocabulary: _Vocabulary, scratch: Path) -> str:
    """The pre-tokenizer of llama.cpp that gives the ids of the original on every probe."""
    for name in _PRE_TOKENIZERS:
        vocabulary.pre = name
        path = scratch / f"vocabulary-{name}.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        vocabulary.write(writer)
        _finish(writer)
        if _agrees(vocabulary.original, path):
            return name
    raise ModelUnavailable(
        "llama.cpp has no pre-tokenizer that splits like this tokenizer.json; give a ready-made GGUF file"
    )


def _agrees(original: Tokenizer, path: Path) -> bool:
    params = llama.llama_model_default_params()
    params.vocab_only = True
    model = llama.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        return False
    try:
        vocab = llama.llama_model_get_vocab(model)
        return all(
            _original_ids(original, probe, special) == _llama_ids(vocab, probe, special)
            for probe in _PROBES
            for special in (True, False)
        )
    finally:
        llama.llama_model_free(model)


def _original_ids(tokenizer: Tokenizer, text: str, special: bool) -> list[int]:
    tokenizer.encode_special_tokens = not special
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _llama_ids(vocab: Any, text: str, special: bool) -> list[int]:
    raw = text.encode()
    ids = (llama.llama_token * (len(raw) + 8))()
    count = llama.llama_tokenize(vocab, raw, len(raw), ids, len(ids), False, special)
    return list(ids[:count])


# -- LoRA ------------------------------------------------------------------------------------------


def _refuse_adapter(config: dict[str, Any]) -> None:
    """All reasons at once why this adapter cannot become GGUF."""
    reasons = {
        f"its kind is {config.get('peft_type')}, not LORA": config.get("peft_type") != "LORA",
        "it uses DoRA (use_dora)": config.get("use_dora"),
        "it trains biases (bias)": config.get("bias", "none") != "none" or config.get("lora_bias"),
        "it saves whole modules (modules_to_save)": config.get("modules_to_save"),
        "it trains embeddings (trainable_token_indices)": config.get("trainable_token_indices"),
        "it repeats layers (layer_replication)": config.get("layer_replication"),
        "it starts at invocation tokens (alora_invocation_tokens)": config.get("alora_invocation_tokens"),
        "it targets bare parameters (target_parameters)": config.get("target_parameters"),
        "its weights are transposed (fan_in_fan_out)": config.get("fan_in_fan_out"),
    }
    found = [reason for reason, applies in reasons.items() if applies]
    if found:
        raise AdapterUnavailable(
            f"llama.cpp cannot run this adapter: {'; '.join(found)}. Train a plain LoRA on linear layers."
        )


def _refuse_module(module: str, name: str, base: _Base) -> None:
    if name.startswith("token_embd") or (name.startswith("output.") and base.is_tied):
        raise AdapterUnavailable(
            f"llama.cpp cannot run this adapter: it trains the embeddings ({module}). Leave them out."
        )


def _read_lora(folder: Path) -> Iterator[tuple[str, Array, Array]]:
    """(module, A of shape (rank, in), B of shape (out, rank)), by name."""
    path = folder / "adapter_model.safetensors"
    if not path.exists():
        raise AdapterUnavailable(f"{path} is missing; save the adapter with safe_serialization")
    with safe_open(path, framework="pt") as tensors:
        loaded = {name: tensors.get_tensor(name).float().numpy() for name in sorted(tensors.keys())}
    parts: dict[str, dict[str, Array]] = {}
    for name, weights in loaded.items():
        found = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", name)
        if found is None:
            raise AdapterUnavailable(
                f"{name} in {path} is not a LoRA of a linear layer; llama.cpp cannot run it"
            )
        parts.setdefault(found[1], {})[found[2]] = weights
    for module, pair in parts.items():
        if len(pair) != 2:
            raise AdapterUnavailable(f"{path} holds only one half of the LoRA of {module}")
        yield module, pair["A"], pair["B"]


def _lora_scale(config: dict[str, Any], module: str, *, rank: int) -> float:
    """alpha / rank, or alpha / sqrt(rank) for rsLoRA (Kalajdzievski 2023), with the module's own alpha."""
    alpha = config["lora_alpha"]
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = value
            break
    return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


# -- files -----------------------------------------------------------------------------------------


def _read_json(path: Path, error: type[EngineError]) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as problem:
        raise error(f"{path} cannot be read ({problem}); is this the right folder?") from problem
    return content


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
