"""Logits of the same ids from llama.cpp and from torch, shape (tokens, vocabulary)."""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType
from llama_cpp import llama_cpp as llama

Logits = npt.NDArray[np.float32]
_SILENT = llama.llama_log_callback(lambda level, text, data: None)  # kept alive for as long as it is set


def silence() -> None:
    llama.llama_log_set(_SILENT, ctypes.c_void_p())


class LlamaFile:
    """A GGUF opened for one sequence after the other; keys and values are float32."""

    def __init__(self, path: Path, adapter: Path | None = None, *, num_threads: int = 1) -> None:
        self._model = llama.llama_model_load_from_file(os.fsencode(path), llama.llama_model_default_params())
        assert self._model, f"llama.cpp does not load {path}"
        self._vocab = llama.llama_model_get_vocab(self._model)
        params = llama.llama_context_default_params()
        self.num_context = min(2048, llama.llama_model_n_ctx_train(self._model))
        params.n_ctx = params.n_batch = params.n_ubatch = self.num_context
        params.n_threads = params.n_threads_batch = num_threads
        params.type_k = params.type_v = GGMLQuantizationType.F32
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context = llama.llama_init_from_model(self._model, params)
        if adapter is not None:
            lora = llama.llama_adapter_lora_init(self._model, os.fsencode(adapter))
            assert lora, f"llama.cpp does not load {adapter}"
            adapters = (llama.llama_adapter_lora_p_ctypes * 1)(lora)
            assert llama.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0)) == 0

    def __enter__(self) -> "LlamaFile":
        return self

    def __exit__(self, *_: object) -> None:
        llama.llama_free(self._context)
        llama.llama_model_free(self._model)

    def tokenize(self, text: str, special: bool) -> list[int]:
        raw = text.encode()
        ids = (llama.llama_token * (len(raw) + 8))()
        count = llama.llama_tokenize(self._vocab, raw, len(raw), ids, len(ids), False, special)
        return list(ids[:count])

    def spell(self, ids: Sequence[int]) -> bytes:
        """The text that comes out for these ids, piece by piece, as the engine streams it."""
        buffer = ctypes.create_string_buffer(256)
        lengths = (
            (llama.llama_token_to_piece(self._vocab, token, buffer, 256, 0, False), buffer.raw)
            for token in ids
        )
        return b"".join(raw[:length] for length, raw in lengths)

    def logits(self, ids: Sequence[int]) -> Logits:
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        batch = llama.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for row, token in enumerate(ids):
            batch.token[row], batch.pos[row], batch.n_seq_id[row] = token, row, 1
            batch.seq_id[row][0], batch.logits[row] = 0, True
        status = llama.llama_decode(self._context, batch)
        llama.llama_batch_free(batch)
        assert status == 0
        shape = (len(ids), llama.llama_vocab_n_tokens(self._vocab))
        return np.ctypeslib.as_array(llama.llama_get_logits(self._context), shape).copy()


def llama_logits(path: Path, ids: Sequence[int], adapter: Path | None = None) -> Logits:
    with LlamaFile(path, adapter) as file:
        return file.logits(ids)


def torch_logits(model: Any, ids: Sequence[int]) -> Logits:
    """Without the rows of virtual tokens, which prompt tuning puts in front."""
    with torch.no_grad():
        found: Logits = model(torch.tensor([list(ids)])).logits[0, -len(ids) :].float().numpy()
    return found


def relative_error(ours: Logits, reference: Logits) -> float:
    """The worst row: largest difference over the largest logit of the row."""
    return float((np.abs(ours - reference).max(1) / np.abs(reference).max(1)).max())
