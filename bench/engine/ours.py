"""Our side of every comparison: the engine process, with sampling and streaming."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from bench.bursts import NUM_THREADS, REPEAT_PENALTY, TEMPERATURE, TOP_K, TOP_P, Brief, Stream, together
from inference import AdapterRef, Engine, Request, Sampling
from inference.types import RequestClass

NUM_CELLS = 16384
NUM_SEQUENCES = 16


class Ours:
    """An open engine. `home` keeps its caches, so a second one in the same folder starts warm."""

    name = "engine"

    def __init__(
        self,
        model: Path,
        home: Path,
        *,
        adapters: Sequence[AdapterRef] = (),
        num_sequences: int = NUM_SEQUENCES,
    ) -> None:
        self._model, self._home, self._adapters = model, home, adapters
        self._num_sequences = num_sequences

    def __enter__(self) -> Self:
        self.engine = Engine.open(
            str(self._model),
            home=self._home,
            n_ctx=NUM_CELLS,
            max_sequences=self._num_sequences,
            threads=NUM_THREADS,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.close()

    def write(
        self, briefs: Sequence[Brief], num_tokens: int, *, is_reproducible: bool = False
    ) -> list[Stream]:
        requests = [self.request(brief, num_tokens, is_reproducible=is_reproducible) for brief in briefs]
        return together([partial(self.stream, request) for request in requests])

    def request(
        self,
        brief: Brief,
        num_tokens: int,
        *,
        of: RequestClass = "interactive",
        is_reproducible: bool = False,
    ) -> Request:
        return Request(
            id=str(time.perf_counter_ns()),
            messages=brief.messages,
            sampling=Sampling(
                temperature=TEMPERATURE,
                top_k=TOP_K,
                top_p=TOP_P,
                repetition_penalty=REPEAT_PENALTY,
                seed=1,
                max_tokens=num_tokens,
            ),
            adapter=None if brief.adapter is None else self._adapters[brief.adapter],
            request_class=of,
            reproducible=is_reproducible,
        )

    def stream(self, request: Request) -> Iterator[int]:
        """Numbers of tokens as they come."""
        for event in self.engine.submit(request):
            if event.token_ids:
                yield len(event.token_ids)

    def text(self, request: Request) -> str:
        return "".join(event.text for event in self.engine.submit(request))
