"""Any server that speaks the OpenAI chat protocol, in place of an engine process of our own.

`https://host/v1` uses the first model that the server lists, `https://host/v1?model=NAME` another.
GALLEY_MODEL_KEY is sent as bearer token when it is set. An adapter is a model that the server
lists under the adapter's SHA-256; loading it there is the operator's act. Decoder settings that the
protocol does not have (`top_k`, `min_p`, `repetition_penalty`) are sent as most servers read them.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from threading import Lock, Timer
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import httpx

from inference.errors import (
    AdapterUnavailable,
    EngineBusy,
    EngineDied,
    EngineError,
    InvalidRequest,
    ModelUnavailable,
)
from inference.types import (
    AdapterRef,
    EngineStats,
    Event,
    FinishReason,
    ModelInfo,
    Request,
    Sampling,
    TokenLogprobs,
)

_FINISH_REASONS: dict[str, FinishReason] = {"stop": "end", "length": "length"}
_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
_BUSY = (429, 503)
_DEFAULT_WAIT_S = 5.0
_ERRORS: dict[int, type[EngineError]] = {
    400: InvalidRequest,
    401: ModelUnavailable,
    403: ModelUnavailable,
    404: ModelUnavailable,
    413: InvalidRequest,
    422: InvalidRequest,
}


class OpenAILink:
    """Implements `inference.engine.engine.Link`. `context_length` is 0 where the server tells none."""

    def __init__(self, address: str) -> None:
        self._base, wanted = _split(address)
        key = os.environ.get("GALLEY_MODEL_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=_TIMEOUT)
        self._lock = Lock()
        self._open: list[_Stream] = []
        self._num_events = 0
        self.model_info = self._choose(wanted)

    def submit(self, request: Request) -> Iterator[Event]:
        model = self._name_of(request.adapter) if request.adapter else self.model_info.name
        return self._events(_Stream(request), _body(request, model))

    def cancel(self, request_id: str) -> None:
        self._stop([stream for stream in self._streams() if stream.request.id == request_id])

    def stats(self) -> EngineStats:
        return EngineStats(
            model=self.model_info.name, num_steps=self._num_events, active=len(self._streams())
        )

    def close(self) -> None:
        self._stop(self._streams())
        self._client.close()

    def _choose(self, wanted: str) -> ModelInfo:
        listed = self._listed()
        name = wanted or next(iter(listed), "")
        if name not in listed:
            raise ModelUnavailable(
                f"{self._base} does not list the model {name!r}, only: {', '.join(listed) or 'none'}"
            )
        return ModelInfo(
            name=name, sha256="", context_length=listed[name], backend="openai", quantization="unknown"
        )

    def _name_of(self, adapter: AdapterRef) -> str:
        if adapter.sha256 not in self._listed():
            raise AdapterUnavailable(
                f"{self._base} lists no model {adapter.sha256}; load {adapter.path} there under that name"
            )
        return adapter.sha256

    def _listed(self) -> dict[str, int]:
        """Context length in tokens by model name."""
        try:
            response = self._client.get(f"{self._base}/models")
            response.raise_for_status()
            entries = response.json()["data"]
            return {entry["id"]: entry.get("max_model_len") or 0 for entry in entries}
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ModelUnavailable(f"the model server {self._base} cannot be reached ({error})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ModelUnavailable(f"{self._base} is not an OpenAI-compatible server") from error

    def _events(self, stream: "_Stream", body: dict[str, Any]) -> Iterator[Event]:
        with self._registered(stream):
            try:
                yield from self._read(stream, body)
            except httpx.HTTPError as error:
                if stream.stopped is None:
                    raise EngineDied(
                        f"the model server {self._base} broke off ({error}); ask again"
                    ) from error
            if stream.stopped:
                yield Event(request_id=stream.request.id, finish_reason=stream.stopped)

    @contextmanager
    def _registered(self, stream: "_Stream") -> Iterator[None]:
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

    def _read(self, stream: "_Stream", body: dict[str, Any]) -> Iterator[Event]:
        """Events up to the server's last one; returns early when the stream was stopped."""
        with self._client.stream("POST", f"{self._base}/chat/completions", json=body) as response:
            stream.attach(response)
            _check(response)
            for line in response.iter_lines():
                if event := _parse(line, stream.request.id):
                    self._num_events += 1
                    yield event
                    if event.finish_reason:
                        return
        if stream.stopped is None:
            raise EngineDied(f"the model server {self._base} ended the text without a reason; ask again")

    def _streams(self) -> list["_Stream"]:
        with self._lock:
            return list(self._open)

    def _stop(self, streams: list["_Stream"]) -> None:
        for stream in streams:
            stream.stop("cancelled")


@dataclass(eq=False)
class _Stream:
    """A request under way. `stop` may be called from any thread and ends a blocked read."""

    request: Request
    stopped: FinishReason | None = None
    _response: httpx.Response | None = None

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


def _split(address: str) -> tuple[str, str]:
    """The address without its query, and the model that the query names."""
    parts = urlsplit(address)
    base = urlunsplit(parts._replace(query="", fragment="")).rstrip("/")
    return base, parse_qs(parts.query).get("model", [""])[0]


def _body(request: Request, model: str) -> dict[str, Any]:
    messages = [{"role": message["role"], "content": message["text"]} for message in request.messages]
    options = _options(request.sampling)
    if request.resume_text:
        messages.append({"role": "assistant", "content": request.resume_text})
        options |= {"continue_final_message": True, "add_generation_prompt": False}
    return {"model": model, "messages": messages, "stream": True, **options}


def _options(sampling: Sampling) -> dict[str, Any]:
    """The settings in the names of the chat API and of its common extensions."""
    options: dict[str, Any] = asdict(sampling)
    schema, logprobs = options.pop("json_schema"), options.pop("logprobs")
    if schema:
        named = {"name": "answer", "schema": json.loads(schema)}
        options["response_format"] = {"type": "json_schema", "json_schema": named}
    if logprobs:
        options |= {"logprobs": True, "top_logprobs": logprobs}
    left_out = {"top_k": not sampling.top_k, "stop": not sampling.stop, "grammar": not sampling.grammar}
    return {name: value for name, value in options.items() if not left_out.get(name)}


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    status, detail = response.status_code, response.read().decode(errors="replace")[:300]
    told = f"the model server answered {status}: {detail}"
    if status in _BUSY:
        wait = response.headers.get("retry-after", "")
        raise EngineBusy(told, retry_after_s=float(wait) if wait.isdecimal() else _DEFAULT_WAIT_S)
    raise _ERRORS.get(status, EngineDied)(told)


def _parse(line: str, request_id: str) -> Event | None:
    if not line.startswith("data:") or line.endswith("[DONE]"):
        return None
    choices = json.loads(line.removeprefix("data:")).get("choices")
    if not choices:
        return None
    text, reason = choices[0]["delta"].get("content") or "", choices[0].get("finish_reason")
    if not text and not reason:
        return None
    return Event(
        request_id=request_id,
        text=text.replace("\0", ""),
        finish_reason=_FINISH_REASONS.get(reason, "end") if reason else None,
        logprobs=tuple(_logprobs(choices[0].get("logprobs"))),
    )


def _logprobs(told: dict[str, Any] | None) -> Iterator[TokenLogprobs]:
    for entry in (told or {}).get("content") or ():
        others = tuple((other["token"], other["logprob"]) for other in entry.get("top_logprobs", ()))
        yield TokenLogprobs(text=entry["token"], logprob=entry["logprob"], alternatives=others)
