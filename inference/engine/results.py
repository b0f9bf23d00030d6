"""Answers that were given before, for requests that can have no other."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from threading import Lock

from inference.engine.link import Link
from inference.types import EngineStats, Event, ModelInfo, Request

_KEPT_REASONS = ("end", "stop", "length")


class CachedLink:
    """A link that remembers up to `max_bytes` of answers; what was asked longest ago goes first.

    Every request is deterministic: it brings its seed. So the answer depends on the model and on
    what the request says, but for its id, its user, its class and its deadline. Answers stay in
    memory: a text that was deleted must not come back from a file.
    """

    def __init__(self, link: Link, *, max_bytes: int) -> None:
        self._link, self._max_bytes = link, max_bytes
        self._lock = Lock()
        self._answers: OrderedDict[bytes, tuple[Event, ...]] = OrderedDict()
        self._num_bytes = 0
        self._num_hits = 0

    @property
    def model_info(self) -> ModelInfo:
        return self._link.model_info

    def submit(self, request: Request) -> Iterator[Event]:
        key = _key(request)
        with self._lock:
            known = self._answers.get(key)
            if known:
                self._answers.move_to_end(key)
                self._num_hits += 1
        if known:
            return (replace(event, request_id=request.id) for event in known)
        return self._remembered(key, self._link.submit(request))

    def cancel(self, request_id: str) -> None:
        self._link.cancel(request_id)

    def stats(self) -> EngineStats:
        return replace(self._link.stats(), num_cached=self._num_hits)

    def close(self) -> None:
        self._link.close()

    def _remembered(self, key: bytes, events: Iterator[Event]) -> Iterator[Event]:
        answer: list[Event] = []
        for event in events:
            answer.append(event)
            if event.finish_reason in _KEPT_REASONS:
                self._keep(key, tuple(answer))
            yield event

    def _keep(self, key: bytes, answer: tuple[Event, ...]) -> None:
        with self._lock:
            if key in self._answers:
                return  # two asked at once
            self._answers[key] = answer
            self._num_bytes += _size(answer)
            while self._num_bytes > self._max_bytes:
                _, oldest = self._answers.popitem(last=False)
                self._num_bytes -= _size(oldest)


def _key(request: Request) -> bytes:
    same = replace(request, id="", user="", request_class="interactive", deadline_s=1.0)
    return sha256(repr(same).encode()).digest()


def _size(answer: tuple[Event, ...]) -> int:
    """Roughly, in bytes."""
    return sum(200 + len(event.text.encode()) + 40 * len(event.token_ids) for event in answer)
