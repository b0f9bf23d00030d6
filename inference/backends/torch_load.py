"""A Hugging Face folder in memory: which models can run, on what device, in which type."""

import importlib.util
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils.logging import disable_progress_bar

from inference.backends.costs import processor
from inference.errors import ModelUnavailable
from inference.sizing import read_memory

_CONFIG_ERRORS = (OSError, ValueError, TypeError, KeyError, AttributeError, StrictDataclassError)
_LOAD_ERRORS = (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError, SafetensorError)
_FULL_ATTENTION = {"full_attention", "sliding_attention"}  # a window longer than the context hides nothing
_BITS = {"4": "NF4", "8": "INT8"}


def read_bits(options: str) -> str:
    """`4` or `8` from `bits=4`, or an empty string."""
    given = dict(parse_qsl(options, keep_blank_values=True))
    bits = given.pop("bits", "")
    if options and (given or bits not in _BITS):
        raise ModelUnavailable(f"torch:FOLDER?{options} has unknown options; it takes bits=4 or bits=8")
    if bits and not importlib.util.find_spec("bitsandbytes"):
        raise ModelUnavailable(f"bits={bits} needs bitsandbytes: install it, or leave the option out")
    return bits


def read_config(folder: Path, n_ctx: int) -> PreTrainedConfig:
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


def trained_length(config: PreTrainedConfig, otherwise: int) -> int:
    """Positions that the model was trained on."""
    return int(getattr(config, "max_position_embeddings", None) or otherwise)


def load_model(folder: Path, bits: str) -> PreTrainedModel:
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


def name_of_type(model: PreTrainedModel, bits: str) -> str:
    return _BITS[bits] if bits else "BF16" if model.dtype == torch.bfloat16 else "F32"


def device_names() -> tuple[str, ...]:
    """What a pass runs on: GPUs, or the processor."""
    gpus = tuple(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    return gpus or processor()


def free_memory() -> int:
    """Bytes where KV cells are: of all GPUs, or of the machine."""
    free = [torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count())]
    return sum(free) or read_memory().available


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
            window is not None and window < min(n_ctx, trained_length(config, n_ctx))
        ),
        "computes its attention in a way of its own": not is_standard,
    }


def _quantization(bits: str) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=bits == "4",
        load_in_8bit=bits == "8",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
