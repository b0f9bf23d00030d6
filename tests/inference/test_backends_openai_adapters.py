"""Adapters on servers that load them while they run, and on those that do not."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from inference import AdapterRef, AdapterUnavailable, Engine, EngineBusy, Request
from inference.backends.replicas import Replicas
from tests.support.openai_servers import Kind, OpenAIServer, serving

TULIPS = Request(id="draft", messages=({"role": "user", "text": "tulips"},))
ROSE, LILY, IRIS = (AdapterRef(sha256=letter * 64, path=f"adapters/{letter}") for letter in "abc")

Opener = Callable[[OpenAIServer, str], Engine]


@pytest.fixture(params=["vllm", "sglang"])
def server(request: pytest.FixtureRequest) -> Iterator[OpenAIServer]:
    with serving(request.param) as made:
        yield made


@pytest.fixture
def llama() -> Iterator[OpenAIServer]:
    with serving("llama") as made:
        yield made


@pytest.fixture
def opener(tmp_path: Path) -> Iterator[Opener]:
    with ExitStack() as stack:
        yield lambda server, options: stack.enter_context(
            Engine.open(server.address + options, home=tmp_path)
        )


@pytest.fixture
def engine(server: OpenAIServer, opener: Opener) -> Engine:
    return opener(server, "?max_adapters=2")


def _write(engine: Engine, adapter: AdapterRef | None) -> str:
    return "".join(event.text for event in engine.submit(replace(TULIPS, adapter=adapter)))


def _names(server: OpenAIServer) -> list[str]:
    return [load["lora_name"] for load in server.loads]


def test_an_adapter_is_loaded_on_first_use(engine: Engine, server: OpenAIServer) -> None:
    assert _write(engine, ROSE) == _write(engine, ROSE) == "Tulips bloom."
    assert server.loads == [{"lora_name": ROSE.sha256, "lora_path": ROSE.path}]
    assert engine.stats().adapters == (ROSE.sha256,)


def test_a_request_without_adapter_asks_for_none(engine: Engine, server: OpenAIServer) -> None:
    _write(engine, None)
    assert server.bodies[0]["model"] == "base"
    assert not {"lora", "lora_path"} & set(server.bodies[0])
    assert server.loads == []


@pytest.mark.parametrize(
    ("kind", "choice"),
    [
        ("vllm", {"model": ROSE.sha256}),
        ("sglang", {"model": "base", "lora_path": ROSE.sha256}),
        ("llama", {"model": "base", "lora": [{"id": 1, "scale": 1.0}]}),
        ("plain", {"model": ROSE.sha256}),
    ],
)
def test_each_kind_is_told_in_its_own_way(opener: Opener, kind: Kind, choice: dict[str, object]) -> None:
    with serving(kind) as server:
        server.started = ["other.gguf", f"{ROSE.path}/adapter.gguf"]
        if kind == "plain":
            server.models.append(ROSE.sha256)
        _write(opener(server, ""), ROSE)
        assert server.bodies[0].items() >= choice.items()


def test_callers_of_one_adapter_load_it_once(engine: Engine, server: OpenAIServer) -> None:
    server.let_load.clear()
    threads = [Thread(target=_write, args=(engine, ROSE)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert server.load_began.wait(30)
    server.let_load.set()
    for thread in threads:
        thread.join()
    assert _names(server) == [ROSE.sha256]
    assert len(server.bodies) == 4


def test_one_that_is_there_already_is_fine(opener: Opener, server: OpenAIServer) -> None:
    engine = opener(server, "")
    server.loaded[ROSE.sha256] = "loaded by somebody else"
    assert _write(engine, ROSE) == "Tulips bloom."
    assert _names(server) == [ROSE.sha256]


def test_what_the_server_lists_is_not_loaded_again(opener: Opener, server: OpenAIServer) -> None:
    server.loaded = {ROSE.sha256: "loaded before", "by-hand": "not ours"}
    engine = opener(server, "?max_adapters=1")
    assert _write(engine, ROSE) == "Tulips bloom."
    assert server.loads == []
    _write(engine, LILY)
    assert server.unloads == [ROSE.sha256]
    assert set(server.loaded) == {"by-hand", LILY.sha256}


def test_a_restart_that_lost_it_loads_it_again(engine: Engine, server: OpenAIServer) -> None:
    _write(engine, ROSE)
    server.restart()
    assert _write(engine, ROSE) == "Tulips bloom."
    assert _names(server) == [ROSE.sha256, ROSE.sha256]


def test_the_least_recently_used_makes_room(engine: Engine, server: OpenAIServer) -> None:
    for adapter in (ROSE, LILY, ROSE, IRIS):
        _write(engine, adapter)
    assert server.unloads == [LILY.sha256]
    assert set(server.loaded) == {ROSE.sha256, IRIS.sha256}


def test_one_with_an_open_stream_stays(opener: Opener, server: OpenAIServer) -> None:
    engine = opener(server, "?max_adapters=1")
    server.ending = "hang"
    stream = engine.submit(replace(TULIPS, adapter=ROSE))
    next(stream)
    with pytest.raises(EngineBusy, match=r"all 1 adapters .* are in use"):
        _write(engine, LILY)
    assert server.unloads == []

    stream.close()
    server.ending = "stop"
    _write(engine, LILY)
    assert server.unloads == [ROSE.sha256]


def test_a_full_server_is_passed_over(tmp_path: Path) -> None:
    with serving("vllm") as one, serving("vllm") as other:
        one.ending = other.ending = "hang"
        with Engine.open(f"{one.address},{other.address}?max_adapters=1", home=tmp_path) as engine:
            first, second = _two_of_one_home([one.address, other.address])
            streams = [engine.submit(replace(TULIPS, adapter=adapter)) for adapter in (first, second)]
            for stream in streams:
                next(stream)
            assert sorted([*one.loaded, *other.loaded]) == sorted([first.sha256, second.sha256])
            assert len(one.loaded) == len(other.loaded) == 1


def _two_of_one_home(addresses: list[str]) -> list[AdapterRef]:
    replicas = Replicas(addresses)
    named = [AdapterRef(sha256=f"{number:064x}", path="x") for number in range(3)]
    homes = [replicas.take(adapter.sha256, []) for adapter in named]
    return next(
        [named[left], named[right]] for left, right in ((0, 1), (0, 2), (1, 2)) if homes[left] is homes[right]
    )


def test_one_that_cannot_be_loaded_is_told(engine: Engine, server: OpenAIServer) -> None:
    server.load_status = 404
    with pytest.raises(AdapterUnavailable, match=f"cannot load the adapter {ROSE.path}: .*No adapter found"):
        _write(engine, ROSE)
    server.load_status = 503
    with pytest.raises(EngineBusy):
        _write(engine, ROSE)
    server.load_status = 200
    assert _write(engine, ROSE) == "Tulips bloom."


def test_llama_server_applies_none_unless_asked(opener: Opener, llama: OpenAIServer) -> None:
    llama.started = [f"{ROSE.path}/adapter.gguf"]
    _write(opener(llama, ""), None)
    assert llama.bodies[0]["lora"] == []


def test_llama_server_numbers_them_anew_when_it_starts(opener: Opener, llama: OpenAIServer) -> None:
    llama.started = [f"/srv/{ROSE.sha256}.gguf", f"/srv/{LILY.sha256}.gguf"]
    engine = opener(llama, "")
    _write(engine, ROSE)
    llama.started.reverse()
    _write(engine, ROSE)
    assert [body["lora"][0]["id"] for body in llama.bodies] == [0, 1]
    with pytest.raises(AdapterUnavailable, match=f"start it with --lora {IRIS.path}/adapter.gguf"):
        _write(engine, IRIS)
