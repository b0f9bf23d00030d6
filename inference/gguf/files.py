"""Reading folders and finishing GGUF files, for models and adapters alike."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from inference.errors import EngineError, ModelUnavailable

Array = npt.NDArray[Any]


def read_json(path: Path, error: type[EngineError]) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as problem:
        raise error(f"{path} cannot be read ({problem}); is this the right folder?") from problem
    return content


def as_f16(weights: Array, name: str, error: type[EngineError] = ModelUnavailable) -> Array:
    with np.errstate(over="ignore"):
        half = weights.astype(np.float16)
    if not np.isfinite(half).all():
        raise error(f"{name} has values that do not fit into 16-bit floats; a model can be exported as F32")
    return half


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
