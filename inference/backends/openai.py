"""Any servers that speak the OpenAI chat protocol, in place of an engine process of our own.

`https://host/v1` uses the first model that the server lists, `https://host/v1?model=NAME` another.
Several servers of the same model are named with commas, the options once at the end:
`http://a/v1,http://b/v1?model=NAME&max_adapters=8`. A request that a server fails before its first
event goes to the next one. GALLEY_MODEL_KEY is sent as bearer token when it is set.

`max_adapters` (4) bounds the adapters per server where Galley loads them, see openai_adapters.py.
`priorities=1` sends `priority` 0 for interactive and 1 for batch requests: vLLM takes it with
--scheduling-policy priority only, SGLang reads it so with --schedule-low-priority-values-first.
Decoder settings that the protocol does not have (`top_k`, `min_p`, `repetition_penalty`) are sent as
most servers read them; `must_say` and `must_not_say` cannot be enforced there and are left out.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Timer

import httpx

from inference.backends.openai_protocol import body_of, parse_address
from inference.backends.openai_server import Server, Stream
from inference.backends.replicas import Replica, Replicas
from inference.errors import EngineBusy, EngineDied, EngineError, InvalidRequest, ModelUnavailable
from inference.types import EngineStats, Event, ModelInfo, Request

_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
_NEVER_ASKED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.HTTPStatusError)


class OpenAILink:
    """Implements `inference.engine.engine.Link`. `context_length` is 0 where the server tells none."""

    def __init__(self, address: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        parsed = parse_address(address)
        key = os.environ.get("GALLEY_MODEL_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None)  # a load must not wait behind long streams
        self._client = httpx.Client(headers=headers, timeout=_TIMEOUT, limits=limits)
        self._has_priorities = parsed.has_priorities
        self._servers = {
            base: Server(base, self._client, max_adapters=parsed.max_adapters) for base in parsed.bases
        }
        self._replicas = Replicas(parsed.bases, clock=clock)
        self._lock = Lock()
        self._open: list[Stream] = []
        self.model_info = self._first_look(parsed.model)

    def submit(self, request: Request) -> Iterator[Event]:
        return self._events(Stream(request))

    def cancel(self, request_id: str) -> None:
        self._stop([stream for stream in self._streams() if stream.request.id == request_id])

    def stats(self) -> EngineStats:
        servers = self._servers.values()
        return EngineStats(
            model=self.model_info.name,
            num_steps=sum(server.num_events for server in servers),
            active=len(self._streams()),
            adapters=tuple(sorted({name for server in servers for name in server.adapters})),
            deaths=self._replicas.num_outages,
        )

    def close(self) -> None:
        self._stop(self._streams())
        self._client.close()

    def _first_look(self, wanted: str) -> ModelInfo:
        """Servers that cannot be reached may come later; those that can must all have the model."""
        listings: dict[str, dict[str, int]] = {}
        problems = []
        for replica in self._replicas.all:
            try:
                listings[replica.address] = self._servers[replica.address].look()
            except httpx.HTTPError as error:
                self._replicas.failed(replica)
                problems.append(f"the model server {replica.address} cannot be reached ({error})")
        if not listings:
            raise ModelUnavailable("; ".join(problems))
        first = next(iter(listings.values()))
        name = wanted or next(iter(first), "")
        for base, listed in listings.items():
            _require_model(base, name, listed)
        return ModelInfo(
            name=name, sha256="", context_length=first[name], backend="openai", quantization="unknown"
        )

    def _events(self, stream: Stream) -> Iterator[Event]:
        with self._registered(stream):
            yield from self._answer(stream)
            if stream.stopped:
                yield Event(request_id=stream.request.id, finish_reason=stream.stopped)

    @contextmanager
    def _registered(self, stream: Stream) -> Iterator[None]:
        timer = Timer(stream.request.deadline_s, stream.stop, ["deadline"])
        timer.daemon = True
        timer.start()
        with self._lock:
            self._open.append(stream)
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                self._open.remove(stream)

    def _answer(self, stream: Stream) -> Iterator[Event]:
        """Ask one replica after the other, until one begins to answer: what follows is its word alone."""
        errors: list[EngineError] = []
        tried: list[Replica] = []
        while stream.stopped is None and (replica := self._replicas.take(stream.adapter_name, tried)):
            tried.append(replica)
            try:
                yield from self._ask(replica, stream)
                return
            except EngineError as error:
                if stream.has_begun or isinstance(error, InvalidRequest):
                    raise
                errors.append(error)
            finally:
                self._replicas.give_back(replica)
        if stream.stopped is None:
            raise self._verdict(errors)

    def _ask(self, replica: Replica, stream: Stream) -> Iterator[Event]:
        server = self._servers[replica.address]
        try:
            if replica.num_failures:
                _require_model(replica.address, self.model_info.name, server.look())
                self._replicas.recovered(replica)
            body = body_of(stream.request, self.model_info.name, has_priorities=self._has_priorities)
            yield from server.answer(stream, body)
        except httpx.HTTPError as error:
            if stream.stopped is None:
                raise self._failure(replica, error) from error

    def _failure(self, replica: Replica, error: httpx.HTTPError) -> EngineError:
        """A server that broke off over this request is a death; one that never heard of it is not."""
        pause = self._replicas.failed(replica)
        if isinstance(error, _NEVER_ASKED):
            told = f"the model server {replica.address} cannot be reached ({error})"
            return EngineBusy(told, retry_after_s=pause)
        return EngineDied(f"the model server {replica.address} broke off ({error}); ask again")

    def _verdict(self, errors: list[EngineError]) -> EngineError:
        """What to tell when nobody took the request; a death first, because two of them end a text."""
        pause = self._replicas.pause()
        if pause or not errors:
            told = f"a model server does not answer; it is tried again in {pause:.0f} s"
            errors.append(EngineBusy(told, retry_after_s=pause))
        deaths = [error for error in errors if isinstance(error, EngineDied)]
        busy = [error for error in errors if isinstance(error, EngineBusy)]
        if deaths or not busy:
            return (deaths or errors)[0]
        return min(busy, key=lambda error: error.retry_after_s)

    def _streams(self) -> list[Stream]:
        with self._lock:
            return list(self._open)

    def _stop(self, streams: list[Stream]) -> None:
        for stream in streams:
            stream.stop("cancelled")


def _require_model(base: str, name: str, listed: dict[str, int]) -> None:
    if name not in listed:
        raise ModelUnavailable(
            f"{base} does not list the model {name!r}, only: {', '.join(listed) or 'none'}"
        )
