"""llama-cpp-python's own class: one text after another."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from bench.bursts import NUM_THREADS, REPEAT_PENALTY, TEMPERATURE, TOP_K, TOP_P, Brief, Stream


class LlamaClass:
    """`Llama.generate`, in this process. The burst begins with the first text."""

    name = "Llama.generate"

    def __init__(self, model: Path) -> None:
        self._model = model

    def __enter__(self) -> Self:
        from llama_cpp import Llama

        self._llama: Any = Llama(
            str(self._model), n_ctx=1024, n_threads=NUM_THREADS, n_threads_batch=NUM_THREADS, verbose=False
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._llama.close()

    def write(self, briefs: Sequence[Brief], num_tokens: int) -> list[Stream]:
        began = time.perf_counter()
        return [Stream(tuple(self._arrivals(brief, num_tokens, began))) for brief in briefs]

    def prefill_rate(self, ids: Sequence[int]) -> float:
        """Tokens of a prompt per second, in one pass of up to 512."""
        self._llama.reset()
        began = time.perf_counter()
        self._llama.eval(list(ids))
        return len(ids) / (time.perf_counter() - began)

    def _arrivals(self, brief: Brief, num_tokens: int, began: float) -> Iterator[tuple[float, int]]:
        settings = {"top_k": TOP_K, "top_p": TOP_P, "min_p": 0.0, "temp": TEMPERATURE}
        tokens = self._llama.generate(list(brief.ids), repeat_penalty=REPEAT_PENALTY, **settings)
        for _, _token in zip(range(num_tokens), tokens, strict=False):
            yield time.perf_counter() - began, 1
