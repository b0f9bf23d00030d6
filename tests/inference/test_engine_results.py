"""Who asks the same again gets the same, and nobody computes it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from inference import AdapterRef, AdapterUnavailable, Engine, Request, Sampling

ASKED = Request(id="1", messages=({"role": "user", "text": "tulips by the river"},))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open("fake:?num_tokens=8", home=tmp_path, cache_mb=1) as engine:
        yield engine


def text(engine: Engine, request: Request) -> str:
    events = list(engine.submit(request))
    assert {event.request_id for event in events} == {request.id}
    assert events[-1].finish_reason
    return "".join(event.text for event in events)


def test_the_same_request_is_computed_once(engine: Engine) -> None:
    first = text(engine, ASKED)
    steps = engine.stats().num_steps
    assert text(engine, replace(ASKED, id="2", user="ben", request_class="batch")) == first
    assert (engine.stats().num_steps, engine.stats().num_cached) == (steps, 1)


@pytest.mark.parametrize(
    "other",
    [
        replace(ASKED, sampling=Sampling(seed=1)),
        replace(ASKED, must_say=("tulips",)),
        replace(ASKED, must_not_say=("tulips",)),
        replace(ASKED, messages=({"role": "user", "text": "tulips"},)),
        replace(ASKED, resume_ids=(1,), resume_text="x"),
    ],
)
def test_whatever_matters_is_part_of_the_key(engine: Engine, other: Request) -> None:
    text(engine, ASKED)
    text(engine, other)
    assert engine.stats().num_cached == 0


def test_an_adapter_is_part_of_the_key(engine: Engine, tmp_path: Path) -> None:
    text(engine, ASKED)
    with pytest.raises(AdapterUnavailable, match="cannot be read"):
        text(engine, replace(ASKED, adapter=AdapterRef(sha256="a" * 64, path=str(tmp_path / "gone"))))


def test_what_was_broken_off_is_not_remembered(engine: Engine) -> None:
    stream = engine.submit(ASKED)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    text(engine, ASKED)
    assert engine.stats().num_cached == 0


def test_the_memory_is_bounded(tmp_path: Path) -> None:
    with Engine.open("fake:?num_tokens=60&tokens_per_second=20000", home=tmp_path, cache_mb=1) as engine:
        for seed in range(80):
            text(engine, replace(ASKED, sampling=Sampling(seed=seed)))
        text(engine, replace(ASKED, sampling=Sampling(seed=79)))
        text(engine, replace(ASKED, sampling=Sampling(seed=0)))
        assert engine.stats().num_cached == 1
