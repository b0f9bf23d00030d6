"""One server of the chat protocol, and a request that is under way on it."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from inference.backends.openai_adapters import Adapters, ListedAdapters, adapters_of
from inference.backends.openai_protocol import AdapterLost, Api, parse, refusal_of
from inference.types import AdapterRef, Event, FinishReason, Request


@dataclass(eq=False)
class Stream:
    """A request under way. `stop` may be called from any thread and ends a blocked read."""

    request: Request
    stopped: FinishReason | None = None
    has_begun: bool = False
    _response: httpx.Response | None = None

    @property
    def adapter(self) -> AdapterRef | None:
        return self.request.adapter

    @property
    def adapter_name(self) -> str:
        return self.request.adapter.sha256 if self.request.adapter else ""

    def attach(self, response: httpx.Response) -> None:
        self._response = response
        if self.stopped:
            self._hang_up()

    def stop(self, reason: FinishReason) -> None:
        self.stopped = self.stopped or reason
        self._hang_up()

    def _hang_up(self) -> None:
        if self._response is None:
            return
        # Closing a socket that another thread reads from wakes nobody up; shutting it down does.
        connection = self._response.extensions["network_stream"].get_extra_info("socket")
        with suppress(OSError):  # the server was faster
            connection.shutdown(socket.SHUT_RDWR)


class Server:
    """`look` comes first: it finds out what the server is."""

    def __init__(self, base: str, client: httpx.Client, *, max_adapters: int) -> None:
        self.num_events = 0
        self._api = Api(base, client)
        self._max_adapters = max_adapters
        self._is_known = False
        self._adapters: Adapters = ListedAdapters(self._api)

    @property
    def adapters(self) -> tuple[str, ...]:
        return self._adapters.names

    def look(self) -> dict[str, int]:
        """Context length in tokens by model name. Raises httpx.HTTPError or ModelUnavailable."""
        listed = self._api.models()
        if not self._is_known:
            self._adapters = adapters_of(self._api, max_adapters=self._max_adapters)
            self._is_known = True
        self._adapters.note(listed)
        return listed

    def answer(self, stream: Stream, body: dict[str, Any]) -> Iterator[Event]:
        """Events up to the last one; ends early when the stream was stopped.

        Raises the errors of the engine for what the server says, httpx.HTTPError for what it fails to.
        """
        try:
            yield from self._ask(stream, body)
        except AdapterLost:
            if stream.has_begun:
                raise
            self._adapters.forget(stream.adapter_name)
            yield from self._ask(stream, body)

    def _ask(self, stream: Stream, body: dict[str, Any]) -> Iterator[Event]:
        with self._adapters.held(stream.adapter) as choice:
            if stream.stopped is None:
                yield from self._read(stream, body | choice)

    def _read(self, stream: Stream, body: dict[str, Any]) -> Iterator[Event]:
        with self._api.client.stream("POST", f"{self._api.base}/chat/completions", json=body) as response:
            stream.attach(response)
            if not response.is_success:
                raise refusal_of(response, stream.adapter_name)
            for line in response.iter_lines():
                if event := parse(line, stream.request):
                    self.num_events += 1
                    stream.has_begun = True
                    yield event
                    if event.finish_reason:
                        return
        if stream.stopped is None:
            hint = "" if stream.has_begun else " before its first word; the prompt may be too long for it"
            raise httpx.RemoteProtocolError(f"it ended the text without a reason{hint}")
