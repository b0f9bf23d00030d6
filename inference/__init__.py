"""The engine. This is its whole public surface; importing it loads neither torch nor llama.cpp."""

from inference.engine.engine import Engine
from inference.errors import (
    AdapterUnavailable,
    EngineBusy,
    EngineDied,
    EngineError,
    InvalidRequest,
    ModelUnavailable,
)
from inference.types import AdapterRef, EngineStats, Event, ModelInfo, Request, Sampling, TokenLogprobs

__all__ = [
    "AdapterRef",
    "AdapterUnavailable",
    "Engine",
    "EngineBusy",
    "EngineDied",
    "EngineError",
    "EngineStats",
    "Event",
    "InvalidRequest",
    "ModelInfo",
    "ModelUnavailable",
    "Request",
    "Sampling",
    "TokenLogprobs",
]
