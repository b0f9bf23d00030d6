"""A Hugging Face folder in the terms of llama.cpp: which family, how it rotates, what must be converted."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from inference.errors import EngineError, ModelUnavailable
from inference.gguf.files import Array, read_json


@dataclass(frozen=True)
class Family:
    """What llama.cpp's code of an architecture takes for granted."""

    arch: gguf.MODEL_ARCH
    activations: tuple[str, ...] = ("silu",)
    rope_types: tuple[str, ...] = ("default", "linear")
    is_always_tied: bool = False


_LLAMA = Family(gguf.MODEL_ARCH.LLAMA, rope_types=("default", "linear", "llama3"))
_GELU = "gelu_pytorch_tanh"
FAMILIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Family(gguf.MODEL_ARCH.QWEN2),
    "qwen3": Family(gguf.MODEL_ARCH.QWEN3),
    # the first Gemma files say "gelu" and mean the tanh form, see transformers' GemmaConfig
    "gemma": Family(gguf.MODEL_ARCH.GEMMA, (_GELU, "gelu"), is_always_tied=True),
    "gemma2": Family(gguf.MODEL_ARCH.GEMMA2, (_GELU,), is_always_tied=True),
    "gemma3_text": Family(gguf.MODEL_ARCH.GEMMA3, (_GELU,)),
}
# llama.cpp knows the 27B models by their number of layers and scales their queries by another rule.
_LAYERS_OF_27B = {"gemma2": 46, "gemma3_text": 62}


@dataclass(frozen=True)
class Base:
    """A model whose family we can carry over; `config` has every key, defaults filled in."""

    folder: Path
    config: dict[str, Any]

    @property
    def model_type(self) -> str:
        return str(self.config["model_type"])

    @property
    def family(self) -> Family:
        return FAMILIES[self.model_type]

    @property
    def arch(self) -> gguf.MODEL_ARCH:
        return self.family.arch

    @property
    def is_gemma(self) -> bool:
        return self.model_type.startswith("gemma")

    @property
    def num_layers(self) -> int:
        return int(self.config["num_hidden_layers"])

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
    def rope(self) -> dict[str, Any]:
        """Rotation of the layers that see the whole text."""
        parameters: dict[str, Any] = self.config.get("rope_parameters") or {}
        return parameters.get("full_attention") or parameters

    @property
    def local_rope(self) -> dict[str, Any]:
        """Rotation of the layers with a sliding window, where the family has its own."""
        parameters: dict[str, Any] = self.config.get("rope_parameters") or {}
        return parameters.get("sliding_attention") or parameters

    @property
    def sliding_layers(self) -> list[bool]:
        return [kind == "sliding_attention" for kind in self.config.get("layer_types") or ()]

    @property
    def query_factor(self) -> float:
        """What queries must be multiplied with, because llama.cpp does not read query_pre_attn_scalar."""
        scalar = self.config.get("query_pre_attn_scalar")
        if scalar is None or self.model_type not in _LAYERS_OF_27B:
            return 1.0
        is_27b = self.num_layers == _LAYERS_OF_27B[self.model_type]
        assumed = int(self.config["hidden_size"]) // self.num_heads if is_27b else self.head_dim
        return math.sqrt(assumed / float(scalar))

    def tensor_name(self, hf_name: str, error: type[EngineError] = ModelUnavailable) -> str:
        names = gguf.get_tensor_name_map(self.arch, self.num_layers)
        found = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise error(f"{hf_name} has no counterpart in llama.cpp's {self.model_type} models")
        return str(found)

    def convert(self, name: str, weights: Array) -> Array:
        """Weights of a tensor, or the B of its LoRA, as llama.cpp's code of the family wants them."""
        part = name.split(".")[-2]
        if self.arch is gguf.MODEL_ARCH.LLAMA and part in ("attn_q", "attn_k"):
            return _interleave(weights, self.num_heads if part == "attn_q" else self.num_kv_heads)
        if self.is_gemma and part.endswith("_norm"):
            weights = weights + np.float32(1)  # Gemma multiplies by 1 + weight, llama.cpp by the weight
        if part == ("attn_q" if self.model_type == "gemma2" else "attn_q_norm"):
            weights = weights * np.float32(self.query_factor)
        return weights


def _interleave(weights: Array, heads: int) -> Array:
    """Rows of Llama's Q and K as llama.cpp rotates them: pairs side by side, not half and half."""
    halves = weights.reshape(heads, 2, -1, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def read_base(folder: Path) -> Base:
    """Read config.json; raises ModelUnavailable with all reasons why llama.cpp would compute otherwise."""
    family = read_json(folder / "config.json", ModelUnavailable).get("model_type")
    if family not in FAMILIES:
        raise ModelUnavailable(
            f"{folder} is a {family} model; {', '.join(FAMILIES)} can be exported, "
            "for others give a ready-made GGUF file"
        )
    base = Base(folder, _complete_config(folder))
    reasons = [reason for reason, applies in _differences(base).items() if applies]
    if reasons:
        raise ModelUnavailable(f"{folder} {' and '.join(reasons)}; give a ready-made GGUF file")
    return base


def _complete_config(folder: Path) -> dict[str, Any]:
    """The config as transformers completes it: files of the hub leave out what is a default."""
    # seconds, and no other part of the export needs it
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(folder).to_dict()
    except (ValueError, TypeError, KeyError, AttributeError, StrictDataclassError) as problem:
        raise ModelUnavailable(f"{folder / 'config.json'} is not a valid config: {problem}") from problem
    return config


def _differences(base: Base) -> dict[str, bool]:
    """What a config may ask for and llama.cpp does not do -> whether this one does."""
    config = base.config
    rope_type = base.rope.get("rope_type", "default")
    local_type = base.local_rope.get("rope_type", "default")
    activation = config.get("hidden_activation") or config.get("hidden_act")
    return {
        f"scales its positions ({rope_type})": rope_type not in base.family.rope_types,
        f"scales its local positions ({local_type})": base.is_gemma and local_type != "default",
        "rotates only a part of each head": any(
            rope.get("partial_rotary_factor", 1.0) != 1.0 for rope in (config, base.rope, base.local_rope)
        ),
        "uses a sliding window": not base.is_gemma and _has_window(config),
        f"has the activation {activation}": activation not in base.family.activations,
        "reads in both directions": bool(config.get("use_bidirectional_attention")),
        "has an output matrix of its own": base.family.is_always_tied and not base.is_tied,
        **_gemma_differences(base),
    }


def _has_window(config: dict[str, Any]) -> bool:
    """Whether a window ever hides a token; one as long as the context does not."""
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    return window is not None and int(window) < int(config["max_position_embeddings"])


def _gemma_differences(base: Base) -> dict[str, bool]:
    attention_cap = bool(base.config.get("attn_logit_softcapping"))
    final_cap = bool(base.config.get("final_logit_softcapping"))
    return {
        "has sliding layers without a window": base.is_gemma
        and any(base.sliding_layers)
        and not base.config.get("sliding_window"),
        "has no soft caps": base.model_type == "gemma2" and not (attention_cap and final_cap),
        "caps its attention scores": base.model_type == "gemma3_text" and attention_cap,
    }
