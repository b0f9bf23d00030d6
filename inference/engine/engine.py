"""The engine as callers see it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

from inference.engine.link import Link
from inference.engine.messages import Launch
from inference.engine.process import ProcessLink
from inference.engine.results import CachedLink
from inference.models import ADDRESS_PREFIXES
from inference.types import EngineStats, Event, ModelInfo, Request


class Engine:
    """Writes texts for many callers at once. Blocking, and safe to call from any thread."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @classmethod
    def open(
        cls,
        model: str,
        *,
        home: Path,
        n_ctx: int = 8192,
        max_sequences: int = 16,
        threads: int | None = None,
        cache_mb: int = 0,
    ) -> Self:
        """Load a model and return when it is ready to write.

        `model` is a GGUF file, a Hugging Face folder (converted once, into `home`), http(s) addresses
        of OpenAI-compatible servers, `torch:` and a Hugging Face folder (transformers and peft), or
        `fake:`. `n_ctx` tokens of KV cache are shared by up to `max_sequences` texts; `threads`
        defaults to the physical cores. With `cache_mb` so many megabytes of answers are remembered
        for requests that are asked again.
        Raises ModelUnavailable.
        """
        link: Link
        if model.startswith(ADDRESS_PREFIXES):
            from inference.backends.openai import OpenAILink  # brings an HTTP client with it

            link = OpenAILink(model)
        else:
            link = ProcessLink(
                Launch(model=model, home=home, n_ctx=n_ctx, max_sequences=max_sequences, threads=threads)
            )
        return cls(CachedLink(link, max_bytes=cache_mb << 20) if cache_mb else link)

    @property
    def model_info(self) -> ModelInfo:
        return self._link.model_info

    def submit(self, request: Request) -> Iterator[Event]:
        """The events of one text as they come; the last one has a `finish_reason`.

        Closing the iterator before that cancels the request. Iterating raises InvalidRequest,
        AdapterUnavailable, EngineBusy or EngineDied; after a death the next submit starts a new
        engine process first.
        """
        return self._link.submit(request)

    def cancel(self, request_id: str) -> None:
        """End a text at the next step; its stream gets one last event, `cancelled`."""
        self._link.cancel(request_id)

    def stats(self) -> EngineStats:
        return self._link.stats()

    def close(self) -> None:
        """End the engine; streams that are still open raise EngineDied."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
