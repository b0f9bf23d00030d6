"""Errors of the engine. A message says what happened and what to try.

EngineError
├── InvalidRequest        the caller's fault: a bad option, a prompt that cannot fit
├── ModelUnavailable      the configured model is missing, corrupt or of an unknown kind
├── AdapterUnavailable    an adapter folder is missing, damaged or made for another base
├── EngineBusy            the queue is full; `retry_after_s` says when to come back
└── EngineDied            the engine process ended; committed text is safe, ask again
"""

from functools import partial
from typing import Any


class EngineError(Exception):
    reason = "engine_error"


class InvalidRequest(EngineError):
    reason = "invalid_request"


class ModelUnavailable(EngineError):
    reason = "model_unavailable"


class AdapterUnavailable(EngineError):
    reason = "adapter_unavailable"


class EngineBusy(EngineError):
    reason = "engine_busy"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        # It crosses the pipe from the engine process, and pickle knows no keyword arguments.
        return partial(EngineBusy, retry_after_s=self.retry_after_s), self.args


class EngineDied(EngineError):
    reason = "engine_died"
