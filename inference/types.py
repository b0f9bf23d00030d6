"""What goes into the engine and what comes out: plain, picklable, range-checked."""

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from inference.chat import Message
from inference.errors import InvalidRequest

FinishReason = Literal["end", "stop", "length", "cancelled", "deadline"]
RequestClass = Literal["interactive", "batch"]

_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_k": (0, 1000),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.5, 2.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "max_tokens": (1, 32768),
    "seed": (0, 2**32 - 1),
    "logprobs": (0, 20),
}
_MAX_STOPS = 16
_MAX_STOP_CHARS = 200
_MAX_GRAMMAR_CHARS = 100_000


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The whole set of decoder settings. Temperature 0 is greedy; top_k 0 means 1000.

    The answer ends before the first of the `stop` strings that it would say. `grammar` (GBNF with a
    rule `root`) or `json_schema` (as text) bind it to a form. With `logprobs` n > 0 every event tells
    the log-probability of its tokens and of the n likeliest alternatives.
    """

    temperature: float = 0.6
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.05
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    max_tokens: int = 512
    seed: int = 0
    stop: tuple[str, ...] = ()
    grammar: str = ""
    json_schema: str = ""
    logprobs: int = 0

    def __post_init__(self) -> None:
        problems = [problem for option in fields(self) if (problem := self._range_problem(option.name))]
        problems += self._text_problems()
        if problems:
            raise InvalidRequest("; ".join(problems))

    def _range_problem(self, name: str) -> str:
        if name not in _RANGES:
            return ""
        value, (low, high) = getattr(self, name), _RANGES[name]
        is_whole = isinstance(getattr(Sampling, name), int)
        is_number = isinstance(value, int if is_whole else int | float) and not isinstance(value, bool)
        if is_number and math.isfinite(value) and low <= value <= high:
            return ""
        kind = "whole number" if is_whole else "number"
        return f"{name} must be a {kind} from {low} to {high}, not {value!r}"

    def _text_problems(self) -> list[str]:
        found = []
        if len(self.stop) > _MAX_STOPS or any(not 0 < len(stop) <= _MAX_STOP_CHARS for stop in self.stop):
            found.append(f"stop takes up to {_MAX_STOPS} texts of 1 to {_MAX_STOP_CHARS} characters")
        if self.grammar and self.json_schema:
            found.append("give a grammar or a json_schema, not both")
        if max(len(self.grammar), len(self.json_schema)) > _MAX_GRAMMAR_CHARS:
            found.append(f"a grammar or schema may have {_MAX_GRAMMAR_CHARS} characters")
        return found


@dataclass(frozen=True, kw_only=True)
class TokenLogprobs:
    """Natural logarithms of probabilities before temperature and filters, of one token of an answer."""

    text: str
    logprob: float
    alternatives: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class AdapterRef:
    """An adapter on disk: its sealed folder and the SHA-256 that names it for ever."""

    sha256: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """One text to write.

    `resume_ids` are the token ids that an earlier attempt has committed: generation goes on
    after them and never repeats them; they count towards `max_tokens`. `resume_text` is the text
    they stand for, for a backend that speaks text only. `must_not_say` are words and phrases that
    the answer will not hold, in any case; `must_say` are facts that it is helped to copy without a
    slip, but not made to. With `no_repeats` it says no sentence of some length twice. Requests of
    one `user` take turns with those of others. A `reproducible` request is computed alone, at a price:
    its text is the same to the byte, whatever else is written at the time. `deadline_s` counts from
    submission.
    """

    id: str
    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    adapter: AdapterRef | None = None
    resume_ids: tuple[int, ...] = ()
    resume_text: str = ""
    must_say: tuple[str, ...] = ()
    must_not_say: tuple[str, ...] = ()
    no_repeats: bool = False
    request_class: RequestClass = "interactive"
    user: str = ""
    reproducible: bool = False
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
    it stands for. `finish_reason` is set on the last event of a request and only there. `logprobs`
    has one entry per token id, where they were asked for.
    """

    request_id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    num_prompt_tokens: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()


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
    still while texts wait means that it hangs. `num_parked` counts texts that had to make room for
    others and went on later, `num_cached` answers that were given without computing, `num_guessed`
    tokens that were tried ahead of their time.
    """

    model: str
    num_steps: int = 0
    active: int = 0
    queued: int = 0
    tokens_per_second: float = 0.0
    kv_used: int = 0
    kv_cells: int = 0
    num_parked: int = 0
    num_cached: int = 0
    num_guessed: int = 0
    num_guessed_right: int = 0
    adapters: tuple[str, ...] = ()
    deaths: int = 0
    pid: int | None = None
