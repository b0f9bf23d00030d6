"""What stands between callers and whatever computes."""

from collections.abc import Iterator
from typing import Protocol

from inference.types import EngineStats, Event, ModelInfo, Request


class Link(Protocol):
    """The way to whatever computes: a process of our own or a server elsewhere."""

    @property
    def model_info(self) -> ModelInfo: ...
    def submit(self, request: Request) -> Iterator[Event]: ...
    def cancel(self, request_id: str) -> None: ...
    def stats(self) -> EngineStats: ...
    def close(self) -> None: ...
