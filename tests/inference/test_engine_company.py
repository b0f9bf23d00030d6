"""The company that a text keeps does not change it: shared prompts, parking, lanes that rotate."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference import AdapterRef, Request, Sampling
from inference.backends.llamacpp import LlamaCppRunner
from inference.engine.loop import Loop
from inference.engine.messages import Cancel, Submit
from inference.engine.scheduler import Limits
from inference.models import resolve
from inference.types import Event, RequestClass
from tests.support.company import drive, num_near_ties, write
from tests.support.random_gguf import write_adapter, write_model

_STYLE = "a style that many briefs have in common, with rules enough to be worth keeping "
_LIMITS = Limits(max_sequences=3, kv_cells=1024, max_lanes=2, max_prefixes=2, quantum=4, step_tokens=64)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def runner(home: Path) -> LlamaCppRunner:
    model = resolve(str(write_model(home / "random.gguf")), home)
    return LlamaCppRunner(model, cache=home, n_ctx=1024, max_sequences=3, threads=1)


@pytest.fixture(scope="module")
def adapters(runner: LlamaCppRunner, home: Path) -> list[AdapterRef | None]:
    base = runner.info.sha256
    return [None, *(write_adapter(home / f"a{i}", base_sha256=base, seed=i) for i in range(1, 4))]


def request(number: int, *, style: str = _STYLE, **options: Any) -> Request:
    return Request(
        id=str(number),
        messages=(
            {"role": "system", "text": style},
            {"role": "user", "text": f"brief {number} " + "of tulips " * (number % 5)},
        ),
        sampling=Sampling(temperature=0.0, max_tokens=24, logprobs=2),
        **options,
    )


def alone(runner: LlamaCppRunner, asked: Request) -> list[Event]:
    return write(Loop(runner, replace(_LIMITS, max_prefixes=0, step_tokens=512)), [asked])[0]


def test_texts_are_the_same_in_any_company(runner: LlamaCppRunner, adapters: list[AdapterRef | None]) -> None:
    rng = random.Random(5)
    classes: list[RequestClass] = ["interactive", "batch"]
    requests = [
        request(
            number,
            style=rng.choice((_STYLE, _STYLE.upper().lower() + "and one more")),
            adapter=rng.choice(adapters),
            request_class=rng.choice(classes),
            user=rng.choice("ab"),
        )
        for number in range(24)
    ]
    loop = Loop(runner, _LIMITS)
    together = write(loop, requests)
    assert loop.stats.num_parked > 0
    ties = [num_near_ties(text, alone(runner, asked)) for asked, text in zip(requests, together, strict=True)]
    assert sum(ties) <= 3


def test_a_reproducible_text_is_the_same_to_the_last_bit(
    runner: LlamaCppRunner, adapters: list[AdapterRef | None]
) -> None:
    asked = [request(i, adapter=adapters[i % 2], reproducible=True) for i in range(4)]
    others = [request(i, adapter=adapters[i % 3]) for i in range(4, 12)]
    mixed = [one for pair in zip(others, [*asked, *others], strict=False) for one in pair]
    together = write(Loop(runner, _LIMITS), mixed)
    for each, text in zip(mixed, together, strict=True):
        if each.reproducible:
            assert text == [replace(event, request_id=each.id) for event in alone(runner, each)]


def test_a_cancelled_neighbour_changes_nothing(runner: LlamaCppRunner) -> None:
    loop = Loop(runner, _LIMITS)
    begun = [loop.turn([Submit(i, request(i)) for i in range(3)]), *(loop.turn([]) for _ in range(6))]
    events = [*(item for batch in begun for item in batch.items), *drive(loop, Cancel(1))]
    kept = [event for ticket, event in events if ticket == 0 and isinstance(event, Event)]
    gone = [event for ticket, event in events if ticket == 1 and isinstance(event, Event)]
    assert 1 < len(gone) < len(kept)
    assert gone[-1].finish_reason == "cancelled"
    assert num_near_ties(kept, alone(runner, request(0))) <= 1


def test_a_shared_beginning_is_computed_once_and_found_after_a_restart(
    runner: LlamaCppRunner, home: Path
) -> None:
    style = "one that no other test has, long enough to be kept on disk as well "
    counted = Loop(runner, _LIMITS)
    first = write(counted, [request(i, style=style) for i in range(3)])
    again = LlamaCppRunner(
        resolve(str(home / "random.gguf"), home), cache=home, n_ctx=1024, max_sequences=3, threads=1
    )
    restarted = Loop(again, _LIMITS)
    computed: list[int] = []
    run = again.run
    again.run = lambda step: computed.append(sum(row.num_tokens for row in step.rows)) or run(step)  # type: ignore[func-returns-value,method-assign]
    second = write(restarted, [request(i, style=style) for i in range(3)])
    assert max(computed) < len(style), "the beginning was computed again"
    for text, before in zip(second, first, strict=True):
        assert num_near_ties(text, before) <= 1


def test_a_damaged_beginning_is_computed_again(runner: LlamaCppRunner, home: Path) -> None:
    style = "a beginning that rots on disk while nobody looks, as disks will now and then "
    first = write(Loop(runner, _LIMITS), [request(0, style=style)])
    for path in (home / "prefixes").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")
    again = LlamaCppRunner(
        resolve(str(home / "random.gguf"), home), cache=home, n_ctx=1024, max_sequences=3, threads=1
    )
    assert num_near_ties(write(Loop(again, _LIMITS), [request(0, style=style)])[0], first[0]) <= 1
