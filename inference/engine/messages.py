"""What travels over the pipe between the worker and the engine's own process.

A *ticket* names one submission for the life of the process, because a caller may use a request's
id again (a second attempt) while the end of the first is still on its way.
"""

from dataclasses import dataclass
from pathlib import Path

from inference.errors import EngineError
from inference.types import EngineStats, Event, ModelInfo, Request


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The first message: what to load. None leaves the choice to the engine."""

    model: str
    home: Path
    n_ctx: int
    max_sequences: int
    threads: int | None


@dataclass(frozen=True)
class Ready:
    model: ModelInfo
    stats: EngineStats


@dataclass(frozen=True)
class Submit:
    ticket: int
    request: Request


@dataclass(frozen=True)
class Cancel:
    ticket: int


@dataclass(frozen=True)
class Batch:
    """All that one step brought, for every caller, in one message."""

    items: tuple[tuple[int, Event | EngineError], ...]
    stats: EngineStats


ToEngine = Submit | Cancel
