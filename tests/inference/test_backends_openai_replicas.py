"""Several servers as one engine: who is asked, and what happens when one of them fails."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from inference import (
    AdapterRef,
    Engine,
    EngineBusy,
    EngineDied,
    InvalidRequest,
    ModelUnavailable,
    Request,
)
from inference.backends.openai import OpenAILink
from inference.backends.replicas import Replicas
from tests.support.openai_servers import OpenAIServer, serving
from tests.support.servers import free_port

TULIPS = Request(id="draft", messages=({"role": "user", "text": "tulips"},))
TUNED = tuple(AdapterRef(sha256=f"{number:064x}", path=f"adapters/{number}") for number in range(8))


class Clock:
    """Stands still until a test moves it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trio() -> Iterator[list[OpenAIServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(serving("vllm")) for _ in range(3)]


@pytest.fixture
def engine(trio: list[OpenAIServer], clock: Clock) -> Iterator[Engine]:
    with _open(trio, clock) as opened:
        yield opened


def _open(servers: list[OpenAIServer], clock: Clock, options: str = "?max_adapters=8") -> Engine:
    return Engine(OpenAILink(",".join(server.address for server in servers) + options, clock=clock))


def _asked(servers: list[OpenAIServer]) -> list[int]:
    return [len(server.bodies) for server in servers]


def _homes(engine: Engine, servers: list[OpenAIServer]) -> list[int]:
    """Which server answers for each of the adapters."""
    return [_home(engine, servers, adapter) for adapter in TUNED]


def _home(engine: Engine, servers: list[OpenAIServer], adapter: AdapterRef) -> int:
    before = _asked(servers)
    list(engine.submit(replace(TULIPS, adapter=adapter)))
    return next(index for index, num in enumerate(_asked(servers)) if num > before[index])


def test_a_request_goes_where_the_fewest_streams_are_open(engine: Engine, trio: list[OpenAIServer]) -> None:
    for server in trio:
        server.ending = "hang"
    streams = [engine.submit(TULIPS) for _ in range(4)]
    for stream in streams:
        next(stream)
    assert _asked(trio) == [2, 1, 1]
    assert engine.stats().active == 4

    streams[1].close()
    next(engine.submit(TULIPS))
    assert _asked(trio) == [2, 2, 1]


def test_stats_are_the_sum_of_all(engine: Engine, trio: list[OpenAIServer]) -> None:
    homes = _homes(engine, trio)
    stats = engine.stats()
    assert stats.num_steps == 4 * len(homes)
    assert stats.adapters == tuple(adapter.sha256 for adapter in TUNED)
    assert (stats.active, stats.deaths) == (0, 0)


def test_an_adapter_stays_where_it_is(engine: Engine, trio: list[OpenAIServer]) -> None:
    homes = _homes(engine, trio)
    assert _homes(engine, trio) == homes
    assert sum(len(server.loads) for server in trio) == len(TUNED)


def test_only_the_adapters_of_a_lost_server_move(
    engine: Engine, trio: list[OpenAIServer], clock: Clock
) -> None:
    homes = _homes(engine, trio)
    lost = homes[0]
    trio[lost].is_down = True
    meanwhile = _homes(engine, trio)
    assert lost not in meanwhile
    assert [home for home in homes if home != lost] == [
        now for home, now in zip(homes, meanwhile, strict=True) if home != lost
    ]

    trio[lost].is_down = False
    trio[lost].restart()
    assert _homes(engine, trio) == meanwhile
    clock.now = 1.0
    assert _homes(engine, trio) == homes
    assert engine.stats().deaths == 1


def test_a_server_that_fails_before_the_first_event_is_passed_over(
    engine: Engine, trio: list[OpenAIServer]
) -> None:
    trio[0].is_down = True
    events = list(engine.submit(TULIPS))
    assert "".join(event.text for event in events) == "Tulips bloom."
    list(engine.submit(TULIPS))
    assert _asked(trio) == [0, 2, 0]


def test_an_internal_error_is_another_servers_chance(engine: Engine, trio: list[OpenAIServer]) -> None:
    trio[0].status = 500
    list(engine.submit(TULIPS))
    assert _asked(trio) == [1, 1, 0]


def test_a_mistake_of_the_caller_is_told_at_once(engine: Engine, trio: list[OpenAIServer]) -> None:
    trio[0].status = 400
    with pytest.raises(InvalidRequest):
        list(engine.submit(TULIPS))
    assert _asked(trio) == [1, 0, 0]


def test_a_text_that_has_begun_is_not_begun_elsewhere(engine: Engine, trio: list[OpenAIServer]) -> None:
    trio[0].ending = "break"
    with pytest.raises(EngineDied, match="broke off"):
        list(engine.submit(TULIPS))
    assert _asked(trio) == [1, 0, 0]
    list(engine.submit(TULIPS))
    assert _asked(trio) == [1, 1, 0]


def test_when_all_break_off_it_is_a_death_and_then_a_wait(
    engine: Engine, trio: list[OpenAIServer], clock: Clock
) -> None:
    for server in trio:
        server.is_down = True
    with pytest.raises(EngineDied):
        list(engine.submit(TULIPS))
    with pytest.raises(EngineBusy) as waiting:
        list(engine.submit(TULIPS))
    assert waiting.value.retry_after_s == 1.0

    clock.now = 1.0
    for server in trio:
        server.is_down = False
    assert list(engine.submit(TULIPS))[-1].finish_reason == "end"


def test_a_busy_server_is_passed_over(engine: Engine, trio: list[OpenAIServer]) -> None:
    trio[0].status = 429
    list(engine.submit(TULIPS))
    assert _asked(trio) == [1, 1, 0]


def test_when_all_are_busy_the_shortest_wait_is_told(engine: Engine, trio: list[OpenAIServer]) -> None:
    for server, wait in zip(trio, ("7", "4", "9"), strict=True):
        server.status, server.retry_after = 429, wait
    with pytest.raises(EngineBusy) as raised:
        list(engine.submit(TULIPS))
    assert raised.value.retry_after_s == 4
    assert _asked(trio) == [1, 1, 1]


def test_a_server_may_come_later(trio: list[OpenAIServer], clock: Clock) -> None:
    trio[0].is_down = True
    with _open(trio, clock) as engine:
        assert engine.model_info.name == "base"
        trio[0].is_down = False
        clock.now = 1.0
        list(engine.submit(TULIPS))
    assert _asked(trio) == [1, 0, 0]


def test_a_server_that_comes_with_another_model_is_not_used(trio: list[OpenAIServer], clock: Clock) -> None:
    trio[0].is_down = True
    with _open(trio, clock) as engine:
        trio[0].is_down, trio[0].models = False, ["other"]
        clock.now = 1.0
        list(engine.submit(TULIPS))
    assert _asked(trio) == [0, 1, 0]


def test_all_must_have_the_model(trio: list[OpenAIServer], clock: Clock) -> None:
    trio[2].models = ["other"]
    with pytest.raises(ModelUnavailable, match="does not list the model 'base', only: other"):
        _open(trio, clock)


def test_somebody_must_be_there(clock: Clock) -> None:
    address = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        OpenAILink(address, clock=clock)


def test_a_single_server_that_cannot_be_reached_is_waited_for(clock: Clock) -> None:
    with serving() as server:
        engine = _open([server], clock, options="")
    with engine, pytest.raises(EngineBusy, match="cannot be reached") as raised:
        list(engine.submit(TULIPS))
    assert raised.value.retry_after_s == 1.0


def test_the_pause_doubles_until_the_server_is_back(clock: Clock) -> None:
    replicas = Replicas(["http://a"], clock=clock)
    [replica] = replicas.all
    pauses = [replicas.failed(replica)]
    for _ in range(7):
        clock.now += replicas.pause()
        assert replicas.take("", []) is replica
        pauses.append(replicas.failed(replica))
        replicas.give_back(replica)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]

    replicas.recovered(replica)
    assert replicas.pause() == 0
    assert (replicas.failed(replica), replicas.num_outages, replicas.num_open) == (1, 2, 0)


def test_one_outage_counts_once_and_one_request_tries_again(clock: Clock) -> None:
    replicas = Replicas(["http://a"], clock=clock)
    [replica] = replicas.all
    assert [replicas.failed(replica) for _ in range(3)] == [1, 1, 1]
    clock.now = 1.0
    assert replicas.take("", []) is replica
    assert replicas.take("", []) is None


def test_adapters_are_spread_over_the_servers() -> None:
    replicas = Replicas(["http://a", "http://b", "http://c"])
    homes = Counter(replicas.take(f"{number:064x}", []) for number in range(300))
    assert len(homes) == 3
    assert all(80 <= count <= 120 for count in homes.values())
