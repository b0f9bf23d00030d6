"""A model without weights, for tests of everything around the engine.

`fake:?tokens_per_second=200&num_tokens=60` writes `num_tokens` words per answer, each sequence at
that speed. Same request, seed and adapter: same text, also when an answer is resumed half-way.
"""

import random
import time
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qsl
from zlib import crc32

from inference import adapters
from inference.backends import Sampled
from inference.engine.costs import UNMEASURED
from inference.engine.scheduler import Step
from inference.engine.sequence import Sequence
from inference.errors import ModelUnavailable
from inference.models import FAKE_PREFIX, ResolvedModel
from inference.types import ModelInfo, Request

_END = 0
_CONTEXT_LENGTH = 4096
_DEFAULTS = {"tokens_per_second": 500.0, "num_tokens": 60.0}
_STOCK = ("the", "a", "of", "and", "to", "in", "with", "for", "is", "was", "will", "new", "more", "today")


class FakeRunner:
    """Implements `inference.backends.Runner`."""

    costs = UNMEASURED
    max_prefixes = 0
    max_lanes = 8
    max_guesses = 0

    def __init__(self, model: ResolvedModel) -> None:
        options = _options(model.location)
        self._step_seconds = 1 / options["tokens_per_second"]
        self._num_tokens = int(options["num_tokens"])
        self._words = {crc32(piece): piece for word in _STOCK if (piece := f" {word}".encode())}
        self._stock = tuple(self._words)
        self._answers: dict[int, list[int]] = {}
        self._open_lanes: set[str | None] = {None}
        self.info = ModelInfo(
            name=model.name,
            sha256=model.sha256,
            context_length=_CONTEXT_LENGTH,
            backend="fake",
            quantization="none",
        )

    def encode(self, request: Request) -> list[int]:
        return [crc32(word.encode()) for message in request.messages for word in message["text"].split()]

    def run(self, step: Step) -> list[Sampled]:
        self._open_lanes.difference_update(step.closed)
        if step.adapter and step.adapter.sha256 not in self._open_lanes:
            adapters.check(Path(step.adapter.path), sha256=step.adapter.sha256)
            self._open_lanes.add(step.adapter.sha256)
        time.sleep(self._step_seconds)
        return [Sampled(self._next_token(row.sequence)) for row in step.rows if row.samples]

    def draw_behind(self, sequence: Sequence, number: int) -> Sampled:
        return Sampled(self._next_token(sequence))

    def piece(self, token_id: int) -> bytes:
        return self._words[token_id]

    def is_end(self, token_id: int) -> bool:
        return token_id == _END

    def rewind(self, sequence: Sequence) -> None:
        """Nothing is computed ahead of the answer."""

    def free(self, sequence: Sequence) -> None:
        self._answers.pop(sequence.ticket, None)

    def _next_token(self, sequence: Sequence) -> int:
        if sequence.ticket not in self._answers:
            self._answers[sequence.ticket] = self._answer(sequence.request)
        answer = self._answers[sequence.ticket]
        if sequence.num_output == len(answer):
            return _END
        allowed = (
            id_ for id_ in (answer[sequence.num_output], *self._stock) if id_ not in sequence.forbidden_ids
        )
        return next(allowed, _END)

    def _answer(self, request: Request) -> list[int]:
        draw = random.Random(_digest(request))
        vocabulary = [*request.messages[-1]["text"].split(), *_STOCK]
        words = draw.choices(vocabulary, k=self._num_tokens)
        pieces = [words[0].capitalize().encode(), *(f" {word}".encode() for word in words[1:])]
        ids = [crc32(piece) for piece in pieces]
        self._words.update(zip(ids, pieces, strict=True))
        return ids


def _digest(request: Request) -> bytes:
    adapter = request.adapter.sha256 if request.adapter else ""
    facts = (tuple((m["role"], m["text"]) for m in request.messages), request.sampling.seed, adapter)
    return sha256(repr(facts).encode()).digest()


def _options(location: str) -> dict[str, float]:
    query = location.removeprefix(FAKE_PREFIX).removeprefix("?")
    try:
        given = {name: float(value) for name, value in parse_qsl(query, strict_parsing=bool(query))}
    except ValueError as error:
        raise ModelUnavailable(f"{location} has an option that is not a number") from error
    if unknown := given.keys() - _DEFAULTS.keys():
        raise ModelUnavailable(f"{location}: unknown option {min(unknown)}; known are {', '.join(_DEFAULTS)}")
    return _DEFAULTS | given
