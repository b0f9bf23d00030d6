"""What goes into the engine and what comes out: plain, picklable, range-checked."""

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from inference.chat import Message
from inference.errors import InvalidRequest

FinishReason = Literal["end", "length", "cancelled", "deadline"]
RequestClass = Literal["interactive", "batch"]

_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_k": (0, 1000),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.5, 2.0),
    "max_tokens": (1, 32768),
    "seed": (0, 2**32 - 1),
}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The whole set of decoder settings. Temperature 0 is greedy; top_k 0 means 1000."""

    temperature: float = 0.6
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.05
    max_tokens: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        problems = []
        for option in fields(self):
            value, (low, high) = getattr(self, option.name), _RANGES[option.name]
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            whole = option.type is not int or isinstance(value, int)
            if not is_number or not whole or not math.isfinite(value) or not low <= value <= high:
                kind = "whole number" if option.type is int else "number"
                problems.append(f"{option.name} must be a {kind} from {low} to {high}, not {value!r}")
        if problems:
            raise InvalidRequest("; ".join(problems))


@dataclass(frozen=True, kw_only=True)
class AdapterRef:
    """A LoRA on disk: its sealed folder and the SHA-256 that names it for ever."""

    sha256: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """One text to write.

    `resume_ids` are the token ids that an earlier attempt has committed: generation goes on
    after them and never repeats them; they count towards `max_tokens`. `resume_text` is the text
    they stand for, for a backend that speaks text only. `must_not_say` are words and phrases that
    the answer will not hold, in any case. `deadline_s` counts from submission.
    """

    id: str
    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    adapter: AdapterRef | None = None
    resume_ids: tuple[int, ...] = ()
    resume_text: str = ""
    must_not_say: tuple[str, ...] = ()
    request_class: RequestClass = "interactive"
    deadline_s: float = 300.0

    def __post_init__(self) -> None:
        unknown = {message["role"] for message in self.messages} - {"system", "user", "assistant"}
        if unknown:
            raise InvalidRequest(f"a message's role must be system, user or assistant, not {min(unknown)!r}")
        if not self.messages:
            raise InvalidRequest("a request needs at least one message")
        if not 0 < self.deadline_s < math.inf:
            raise InvalidRequest(f"deadline_s must be a positive number of seconds, not {self.deadline_s!r}")


@dataclass(frozen=True, kw_only=True)
class Event:
    """A piece of the answer, or its end.

    `text` is exact UTF-8 (an unfinished character is held back), `token_ids` are the ids that
    it stands for. `finish_reason` is set on the last event of a request and only there.
    """

    request_id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    num_prompt_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The model that an engine runs. `context_length` is in tokens, prompt and answer together."""

    name: str
    sha256: str
    context_length: int
    backend: str
    quantization: str


@dataclass(frozen=True, kw_only=True)
class EngineStats:
    """One look at an engine. Speed is a moving mean over the latest steps, in tokens per second.

    `num_steps` grows with every turn of a living engine that has work; a number that stands
    still while texts wait means that it hangs.
    """

    model: str
    num_steps: int = 0
    active: int = 0
    queued: int = 0
    tokens_per_second: float = 0.0
    kv_used: int = 0
    kv_cells: int = 0
    adapters: tuple[str, ...] = ()
    deaths: int = 0
    pid: int | None = None
