"""llama.cpp writes hundreds of lines to stderr for every file it opens; this keeps its errors only."""

import ctypes
import logging

from llama_cpp import llama_cpp as llama

logger = logging.getLogger(__name__)

_GGML_LOG_ERROR = 4


def _forward_errors(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    if level == _GGML_LOG_ERROR:
        logger.error(text.decode("utf-8", errors="replace").strip())


_callback = llama.llama_log_callback(_forward_errors)  # C holds a bare pointer to it


def quiet_llama() -> None:
    """For a process that converts models; the engine's own sets more than this."""
    llama.llama_log_set(_callback, ctypes.c_void_p())
