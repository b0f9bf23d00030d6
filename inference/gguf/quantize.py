"""llama.cpp's own quantization, with the attention kept finer on request."""

import ctypes
import os
from pathlib import Path
from typing import Any

import gguf
from llama_cpp import llama_cpp as llama

from inference.errors import ModelUnavailable

PLAIN_TYPES = {"F32": gguf.LlamaFileType.ALL_F32, "F16": gguf.LlamaFileType.MOSTLY_F16}
_QUANTIZED_TYPES = {
    "Q8_0": llama.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q6_K": llama.LLAMA_FTYPE_MOSTLY_Q6_K,
    "Q4_K_M": llama.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "Q4_0": llama.LLAMA_FTYPE_MOSTLY_Q4_0,
}
QUANTIZATIONS = (*PLAIN_TYPES, *_QUANTIZED_TYPES)  # from fine to coarse
_ATTENTION_TYPES = {
    "F16": gguf.GGMLQuantizationType.F16,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
    "Q6_K": gguf.GGMLQuantizationType.Q6_K,
}
ATTENTION_TYPES = tuple(_ATTENTION_TYPES)
_ATTENTION_PATTERN = rb"attn_(q|k|v|output)\.weight"


def is_quantized(quantization: str) -> bool:
    return quantization in _QUANTIZED_TYPES


def check_types(quantization: str, attention: str | None) -> None:
    """Refuse before any work begins what `quantize` could not do."""
    if quantization not in QUANTIZATIONS:
        known = ", ".join(QUANTIZATIONS)
        raise ModelUnavailable(f"unknown quantization {quantization}; choose one of {known}")
    if attention is None:
        return
    if attention not in ATTENTION_TYPES:
        known = ", ".join(ATTENTION_TYPES)
        raise ModelUnavailable(f"unknown type {attention} for the attention; choose one of {known}")
    if QUANTIZATIONS.index(attention) >= QUANTIZATIONS.index(quantization):
        raise ModelUnavailable(
            f"attention at {attention} is not finer than a {quantization} model; leave it out"
        )


def quantize(source: Path, target: Path, quantization: str, *, attention: str | None = None) -> None:
    """Write `target` from an F16 or F32 file. Rows that do not fill a block get llama.cpp's fallback type.

    Raises ModelUnavailable where llama.cpp does not do that, so for a file that is quantised already.
    """
    check_types(quantization, attention)
    if not is_quantized(quantization):
        raise ModelUnavailable(
            f"{quantization} is no quantisation; choose one of {', '.join(_QUANTIZED_TYPES)}"
        )
    params = llama.llama_model_quantize_default_params()
    params.ftype = _QUANTIZED_TYPES[quantization]
    params.nthread = os.cpu_count() or 1
    if attention is not None:
        overrides = _attention_overrides(attention)
        params.tt_overrides = ctypes.cast(overrides, type(params.tt_overrides))
    status = llama.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))
    if status:
        raise ModelUnavailable(
            f"llama.cpp could not quantize {source.name}: it needs a whole file in F16 or F32; "
            "its log says more"
        )


def _attention_overrides(attention: str) -> Any:
    """llama.cpp reads pairs of pattern and type up to one without a pattern."""
    override = llama.llama_model_tensor_override
    kind = int(_ATTENTION_TYPES[attention])
    return (override * 2)(override(_ATTENTION_PATTERN, kind), override(None, 0))
