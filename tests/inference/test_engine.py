"""The engine with its own process, as a worker uses it; the fake model writes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from inference import (
    Engine,
    EngineDied,
    EngineError,
    Event,
    InvalidRequest,
    ModelUnavailable,
    Request,
    Sampling,
)

SLOW = "fake:?tokens_per_second=20"


@pytest.fixture
def open_engine(tmp_path: Path) -> Iterator[Callable[[str], Engine]]:
    opened: list[Engine] = []

    def open_one(model: str = "fake:?tokens_per_second=2000") -> Engine:
        opened.append(Engine.open(model, home=tmp_path))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.close()


@pytest.fixture
def engine(open_engine: Callable[[], Engine]) -> Engine:
    return open_engine()


def request(id: str = "draft", *, seed: int = 0) -> Request:
    text = ({"role": "user", "text": "Subject: tulips in spring"},)
    return Request(id=id, messages=text, sampling=Sampling(seed=seed))  # type: ignore[arg-type]


def text(events: Iterator[Event]) -> str:
    return "".join(event.text for event in events)


def kill(engine: Engine) -> None:
    pid = engine.stats().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_it_writes(engine: Engine) -> None:
    events = list(engine.submit(request()))
    assert len(text(iter(events)).split()) == 60
    assert [event.finish_reason for event in events[-2:]] == [None, "end"]
    assert events[0].num_prompt_tokens == 4
    assert engine.model_info.backend == "fake"


def test_many_threads_each_get_their_own_text(engine: Engine) -> None:
    requests = [request(str(seed), seed=seed) for seed in range(24)]
    alone = [text(engine.submit(each)) for each in requests]
    with ThreadPoolExecutor(24) as callers:
        together = list(callers.map(lambda each: text(engine.submit(each)), requests))
    assert together == alone
    assert len(set(together)) == 24


def test_cancel_ends_a_stream_early(open_engine: Callable[[str], Engine]) -> None:
    engine = open_engine(SLOW)
    stream = engine.submit(request())
    next(stream)
    engine.cancel("draft")
    rest = list(stream)
    assert rest[-1].finish_reason == "cancelled"
    assert len(rest) < 10


def test_closing_a_stream_frees_its_place(open_engine: Callable[[str], Engine]) -> None:
    engine = open_engine(SLOW)
    stream = engine.submit(request())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    wait_until(lambda: engine.stats().active == 0)


def test_the_end_of_an_earlier_attempt_does_not_reach_the_next(open_engine: Callable[[str], Engine]) -> None:
    engine = open_engine(SLOW)
    engine.submit(request())
    engine.cancel("draft")
    second = engine.submit(request())
    assert [next(second).finish_reason for _ in range(5)] == [None] * 5


def test_a_request_that_cannot_be_met_raises_where_it_is_read(engine: Engine) -> None:
    long = replace(request(), messages=({"role": "user", "text": "tulip " * 5000},))
    with pytest.raises(InvalidRequest, match="shorten the brief"):
        next(engine.submit(long))


def test_a_killed_process_ends_every_stream_and_the_next_submit_starts_another(
    open_engine: Callable[[str], Engine],
) -> None:
    engine = open_engine(SLOW)
    first = engine.stats().pid
    streams = [engine.submit(request(str(number))) for number in range(3)]
    kill(engine)
    for stream in streams:
        with pytest.raises(EngineDied):
            list(stream)
    assert engine.stats().deaths == 1
    next(engine.submit(request()))
    assert engine.stats().pid not in (None, first)
    assert engine.stats().deaths == 1


def test_a_draft_goes_on_in_the_next_process_where_the_first_left_it(engine: Engine) -> None:
    whole = list(engine.submit(request()))
    committed = whole[:25]
    kill(engine)
    ids = tuple(id_ for event in committed for id_ in event.token_ids)
    rest = until_it_lives(engine, replace(request(), resume_ids=ids))
    assert text(iter(committed)) + rest == text(iter(whole))


def until_it_lives(engine: Engine, request: Request) -> str:
    """A submit in the instant of the death may still meet it."""
    for _ in range(50):
        try:
            return text(engine.submit(request))
        except EngineDied:
            time.sleep(0.02)
    raise AssertionError("the engine did not come back")


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.kill()
    wait_until(lambda: not Path(f"/proc/{child}").exists())


_PARENT = """
import sys, time
from pathlib import Path
from inference import Engine, Request
engine = Engine.open("fake:?tokens_per_second=1", home=Path(sys.argv[1]))
engine.submit(Request(id="draft", messages=({"role": "user", "text": "tulips"},)))
print(engine.stats().pid, flush=True)
time.sleep(60)
"""


def test_the_process_outlives_ctrl_c_because_its_parent_decides(engine: Engine) -> None:
    pid = engine.stats().pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    assert len(list(engine.submit(request()))) == 61
    assert engine.stats().deaths == 0


def test_a_closed_engine_says_so(engine: Engine) -> None:
    engine.close()
    with pytest.raises(EngineDied, match="closed"):
        engine.submit(request())


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("", "no model is configured"),
        ("nowhere/model.gguf", "cannot be read"),
        ("fake:?speed=3", "unknown option speed"),
        ("http://127.0.0.1:9/v1", "cannot be reached"),
    ],
)
def test_a_model_that_is_not_there_is_one_clear_sentence(tmp_path: Path, model: str, complaint: str) -> None:
    with pytest.raises(ModelUnavailable, match=complaint) as raised:
        Engine.open(model, home=tmp_path)
    assert isinstance(raised.value, EngineError)
    assert "\n" not in str(raised.value)


def wait_until(is_true: Callable[[], bool], *, seconds: float = 5.0) -> None:
    give_up = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < give_up
        time.sleep(0.01)
