"""The chat protocol in texts: addresses, bodies, streamed lines, and what a refusal means."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import parse_qsl

import httpx

from inference.errors import (
    AdapterUnavailable,
    EngineBusy,
    EngineDied,
    EngineError,
    InvalidRequest,
    ModelUnavailable,
)
from inference.models import ADDRESS_PREFIXES
from inference.types import Event, FinishReason, Request, Sampling, TokenLogprobs

BUSY_WAIT_S = 5.0
"""When a busy server does not tell how long it will be."""

_FINISH_REASONS: dict[str, FinishReason] = {"stop": "end", "length": "length"}
_BUSY = (429, 503)
_ERRORS: dict[int, type[EngineError]] = {
    400: InvalidRequest,
    401: ModelUnavailable,
    403: ModelUnavailable,
    404: ModelUnavailable,
    413: InvalidRequest,
    422: InvalidRequest,
}
_PRIORITIES = {"interactive": 0, "batch": 1}
_LOOK_TIMEOUT_S = 10.0


class AdapterLost(AdapterUnavailable):
    """The server does not know an adapter that it had: it was started anew, or another client unloaded it."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """What GALLEY_MODEL says: servers, and the options of its query."""

    bases: tuple[str, ...]
    model: str
    max_adapters: int
    has_priorities: bool


@dataclass(frozen=True)
class Api:
    """One server. The chat protocol is at `base`, a server's own routes start at `root`."""

    base: str
    client: httpx.Client

    @property
    def root(self) -> str:
        return self.base.removesuffix("/v1")

    def models(self) -> dict[str, int]:
        """Context length in tokens by model name. Raises httpx.HTTPError or ModelUnavailable."""
        response = self.client.get(f"{self.base}/models", timeout=_LOOK_TIMEOUT_S)
        response.raise_for_status()
        try:
            return {entry["id"]: entry.get("max_model_len") or 0 for entry in response.json()["data"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ModelUnavailable(f"{self.base} is not an OpenAI-compatible server") from error


def parse_address(address: str) -> Address:
    """Raises ModelUnavailable with everything that is wrong."""
    listed, _, query = address.partition("?")
    bases = tuple(dict.fromkeys(base.strip().rstrip("/") for base in listed.split(",")))
    options = {"model": "", "max_adapters": "4", "priorities": "0"} | dict(parse_qsl(query))
    problems = [f"{base!r} is no address" for base in bases if not _is_address(base)]
    if not options["max_adapters"].isdecimal() or int(options["max_adapters"]) < 1:
        problems.append(f"max_adapters must be a number from 1, not {options['max_adapters']!r}")
    if options["priorities"] not in ("0", "1"):
        problems.append(f"priorities must be 0 or 1, not {options['priorities']!r}")
    if problems:
        raise ModelUnavailable(f"{address} cannot be used: {'; '.join(problems)}")
    return Address(
        bases=bases,
        model=options["model"],
        max_adapters=int(options["max_adapters"]),
        has_priorities=options["priorities"] == "1",
    )


def _is_address(base: str) -> bool:
    try:
        return base.startswith(ADDRESS_PREFIXES) and bool(httpx.URL(base).host)
    except httpx.InvalidURL:
        return False


def body_of(request: Request, model: str, *, has_priorities: bool) -> dict[str, Any]:
    messages = [{"role": message["role"], "content": message["text"]} for message in request.messages]
    options = _options(request.sampling)
    if request.resume_text:
        messages.append({"role": "assistant", "content": request.resume_text})
        options |= {"continue_final_message": True, "add_generation_prompt": False}
    if has_priorities:
        options["priority"] = _PRIORITIES[request.request_class]
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


def refusal_of(response: httpx.Response, adapter: str = "") -> EngineError:
    """What an answer that is no success means; `adapter` is the one that was asked for."""
    response.read()
    wait = response.headers.get("retry-after", "")
    return _refusal(response.status_code, response.text, adapter, wait)


def _refusal(status: int, detail: str, adapter: str, wait: str = "") -> EngineError:
    told = f"the model server answered {status}: {detail[:300]}"
    if status in _BUSY:
        return EngineBusy(told, retry_after_s=float(wait) if wait.isdecimal() else BUSY_WAIT_S)
    if adapter and adapter in detail:
        # Servers differ in status and words; that they name the adapter is common to all.
        return AdapterLost(told)
    return _ERRORS.get(status, EngineDied)(told)


def parse(line: str, request: Request) -> Event | None:
    """The event of a streamed line, if it holds one. Raises what a refusal in the stream means."""
    if not line.startswith("data:") or line.endswith("[DONE]"):
        return None
    said = json.loads(line.removeprefix("data:"))
    if error := said.get("error"):
        raise _refusal(
            _status_of(error), json.dumps(error), request.adapter.sha256 if request.adapter else ""
        )
    choices = said.get("choices")
    if not choices:
        return None
    text, reason = choices[0]["delta"].get("content") or "", choices[0].get("finish_reason")
    if not text and not reason:
        return None
    return Event(
        request_id=request.id,
        text=text.replace("\0", ""),
        finish_reason=_FINISH_REASONS.get(reason, "end") if reason else None,
        logprobs=tuple(_logprobs(choices[0].get("logprobs"))),
    )


def _status_of(error: object) -> int:
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else 500


def _logprobs(told: dict[str, Any] | None) -> Iterator[TokenLogprobs]:
    for entry in (told or {}).get("content") or ():
        others = tuple((other["token"], other["logprob"]) for other in entry.get("top_logprobs", ()))
        yield TokenLogprobs(text=entry["token"], logprob=entry["logprob"], alternatives=others)
