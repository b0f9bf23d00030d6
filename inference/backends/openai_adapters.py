"""How a server gets an adapter, and how a request chooses it: each kind of server has its own way.

vLLM (with VLLM_ALLOW_RUNTIME_LORA_UPDATING) and SGLang load and unload adapters while they run, from a
path that they must see as we do. There Galley manages the adapters that are named by a SHA-256.
llama-server has those that it was started with. Any other server lists an adapter as a model.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import httpx

from inference.adapters import GGUF_NAME
from inference.backends.openai_protocol import BUSY_WAIT_S, Api, refusal_of
from inference.errors import AdapterUnavailable, EngineBusy
from inference.types import AdapterRef

_IS_LOADED = re.compile(r"already (been )?loaded|already exists")
_ADAPTER_NAME = re.compile(r"[0-9a-f]{64}")


class Adapters(Protocol):
    """The adapters of one server."""

    @property
    def names(self) -> tuple[str, ...]:
        """Those that Galley has loaded there, least recently used first."""

    def held(self, adapter: AdapterRef | None) -> AbstractContextManager[dict[str, Any]]:
        """What a body says to choose the adapter, or none; until the exit it stays loaded.

        Raises AdapterUnavailable or EngineBusy, and httpx.HTTPError when the server does not answer.
        """

    def note(self, listed: Collection[str]) -> None:
        """The server was reached for the first time, or again, and lists these models."""

    def forget(self, sha256: str) -> None:
        """The server says that it does not have this one."""


def adapters_of(api: Api, *, max_adapters: int) -> Adapters:
    """Tell the kind of a server by its routes: 405 to a GET means that a POST would be heard."""
    if _is_list(api.client.get(f"{api.root}/lora-adapters")):
        return StartedAdapters(api)
    for way in (_VLLM, _SGLANG):
        if api.client.get(f"{api.root}{way.load}").status_code == httpx.codes.METHOD_NOT_ALLOWED:
            return LoadedAdapters(api, way, max_adapters=max_adapters)
    return ListedAdapters(api)


def _is_list(response: httpx.Response) -> bool:
    is_json = response.headers.get("content-type", "").startswith("application/json")
    return response.is_success and is_json and isinstance(response.json(), list)


@dataclass(frozen=True, kw_only=True)
class _Way:
    """Routes below the root, and the field of a chat body that takes an adapter's name."""

    load: str
    unload: str
    field: str


_VLLM = _Way(load="/v1/load_lora_adapter", unload="/v1/unload_lora_adapter", field="model")
_SGLANG = _Way(load="/load_lora_adapter", unload="/unload_lora_adapter", field="lora_path")


class _GivenAdapters:
    """Adapters that the operator has put there: Galley neither loads nor remembers them."""

    names: tuple[str, ...] = ()

    def __init__(self, api: Api) -> None:
        self._api = api

    def note(self, listed: Collection[str]) -> None:
        """What is there is read for every request."""

    def forget(self, sha256: str) -> None:
        """Nothing is remembered."""


class ListedAdapters(_GivenAdapters):
    """A model that the server lists under the adapter's SHA-256."""

    @contextmanager
    def held(self, adapter: AdapterRef | None) -> Iterator[dict[str, Any]]:
        if adapter and adapter.sha256 not in self._api.models():
            raise AdapterUnavailable(
                f"{self._api.base} lists no model {adapter.sha256}; load {adapter.path} there under that name"
            )
        yield {"model": adapter.sha256} if adapter else {}


class StartedAdapters(_GivenAdapters):
    """llama-server: chosen by a number, which may be another one after a restart."""

    @contextmanager
    def held(self, adapter: AdapterRef | None) -> Iterator[dict[str, Any]]:
        # Without the field, the server applies every adapter that it was started with.
        yield {"lora": [{"id": self._id_of(adapter), "scale": 1.0}] if adapter else []}

    def _id_of(self, adapter: AdapterRef) -> int:
        file = f"{adapter.path}/{GGUF_NAME}"
        started = self._api.client.get(f"{self._api.root}/lora-adapters").raise_for_status().json()
        for entry in started:
            if entry["path"] == file or adapter.sha256 in entry["path"]:
                found: int = entry["id"]
                return found
        raise AdapterUnavailable(f"{self._api.base} has no such adapter; start it with --lora {file}")


class LoadedAdapters:
    """vLLM and SGLang: loaded on first use, and the least recently used unloaded above `max_adapters`."""

    def __init__(self, api: Api, way: _Way, *, max_adapters: int) -> None:
        self._api = api
        self._way = way
        self._max_adapters = max_adapters
        self._changing = Lock()  # one load at a time: whoever waited for it finds the adapter loaded
        self._lock = Lock()  # guards what follows
        self._loaded: dict[str, None] = {}  # least recently used first
        self._num_open: Counter[str] = Counter()

    @property
    def names(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._loaded)

    @contextmanager
    def held(self, adapter: AdapterRef | None) -> Iterator[dict[str, Any]]:
        if adapter is None:
            yield {}
            return
        self._count(adapter.sha256, 1)  # before it is loaded, so that nobody unloads it in between
        try:
            self._require(adapter)
            yield {self._way.field: adapter.sha256}
        finally:
            self._count(adapter.sha256, -1)

    def note(self, listed: Collection[str]) -> None:
        with self._lock:
            self._loaded = dict.fromkeys(name for name in listed if _ADAPTER_NAME.fullmatch(name))

    def forget(self, sha256: str) -> None:
        with self._lock:
            self._loaded.pop(sha256, None)

    def _count(self, sha256: str, change: int) -> None:
        with self._lock:
            self._num_open[sha256] += change

    def _require(self, adapter: AdapterRef) -> None:
        if self._use(adapter.sha256):
            return
        with self._changing:
            if not self._use(adapter.sha256):
                self._make_room()
                self._load(adapter)

    def _use(self, sha256: str) -> bool:
        """Whether it is loaded; if so it is the most recently used one now."""
        with self._lock:
            if sha256 not in self._loaded:
                return False
            self._loaded[sha256] = self._loaded.pop(sha256)
            return True

    def _make_room(self) -> None:
        while unwanted := self._take_one_too_many():
            # What the server refuses to unload it has lost already.
            self._api.client.post(f"{self._api.root}{self._way.unload}", json={"lora_name": unwanted})

    def _take_one_too_many(self) -> str:
        with self._lock:
            if len(self._loaded) < self._max_adapters:
                return ""
            idle = next((name for name in self._loaded if not self._num_open[name]), "")
            if not idle:
                raise EngineBusy(
                    f"all {self._max_adapters} adapters of {self._api.base} are in use; "
                    "raise max_adapters or come back",
                    retry_after_s=BUSY_WAIT_S,
                )
            del self._loaded[idle]
            return idle

    def _load(self, adapter: AdapterRef) -> None:
        wanted = {"lora_name": adapter.sha256, "lora_path": adapter.path}
        response = self._api.client.post(f"{self._api.root}{self._way.load}", json=wanted)
        if not response.is_success and not _IS_LOADED.search(response.text):
            self._raise_for(response, adapter)
        with self._lock:
            self._loaded[adapter.sha256] = None

    def _raise_for(self, response: httpx.Response, adapter: AdapterRef) -> None:
        refusal = refusal_of(response)
        if isinstance(refusal, EngineBusy):
            raise refusal
        raise AdapterUnavailable(f"{self._api.base} cannot load the adapter {adapter.path}: {refusal}")
