"""A PEFT LoRA to GGUF, with the exact scale of every module."""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
from safetensors import safe_open

from inference.errors import AdapterUnavailable
from inference.gguf.base import Base, read_base
from inference.gguf.files import Array, as_f16, finish, read_json

_VARIANTS = ("use_qalora", "use_bdlora", "arrow_config", "kasa_config", "monteclora_config")
_HARMLESS_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # PiSSA and others shift the base


def export_lora(adapter_dir: Path, base_config_dir: Path, out: Path) -> Path:
    """Write the LoRA of a PEFT folder as F16 GGUF; the scale of every module is folded into its B.

    llama.cpp has one alpha per file, so rsLoRA and rank or alpha patterns would otherwise be
    lost. Raises AdapterUnavailable for what llama.cpp cannot apply.
    """
    base = read_base(base_config_dir)
    config = read_json(adapter_dir / "adapter_config.json", AdapterUnavailable)
    _refuse_adapter(config)
    writer = gguf.GGUFWriter(out.with_name(f"{out.name}.part"), gguf.MODEL_ARCH_NAMES[base.arch])
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 0.0)  # 0 switches llama.cpp's own alpha / rank off
    for module, lora_a, lora_b in _read_lora(adapter_dir):
        name = base.tensor_name(f"{module}.weight", AdapterUnavailable)
        _refuse_module(module, name, base)
        scaled = lora_b * _lora_scale(config, module, rank=lora_a.shape[0])
        writer.add_tensor(f"{name}.lora_a", as_f16(lora_a, name, AdapterUnavailable))
        writer.add_tensor(f"{name}.lora_b", as_f16(base.convert(name, scaled), name, AdapterUnavailable))
    finish(writer)
    os.replace(out.with_name(f"{out.name}.part"), out)
    return out


def _refuse_adapter(config: dict[str, Any]) -> None:
    """All reasons at once why this adapter cannot become GGUF."""
    start = config.get("init_lora_weights", True)
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
        f"its start changed the base model (init_lora_weights: {start})": start not in _HARMLESS_STARTS,
        **{f"it is a variant of LoRA ({name})": config.get(name) for name in _VARIANTS},
    }
    found = [reason for reason, applies in reasons.items() if applies]
    if found:
        raise AdapterUnavailable(
            f"llama.cpp cannot run this adapter: {'; '.join(found)}. Train a plain LoRA on linear layers."
        )


def _refuse_module(module: str, name: str, base: Base) -> None:
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
