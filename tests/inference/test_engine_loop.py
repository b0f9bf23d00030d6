"""Turns of the loop in this process, with the fake runner at full speed."""

from pathlib import Path

import pytest

from inference.backends.fake import FakeRunner
from inference.engine.loop import Loop
from inference.engine.messages import Batch, Cancel, Submit
from inference.engine.scheduler import Limits
from inference.errors import AdapterUnavailable, EngineBusy, EngineError, InvalidRequest
from inference.models import resolve
from inference.types import AdapterRef, Event, Request, Sampling

FAST = "fake:?tokens_per_second=100000&num_tokens=6"


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    runner = FakeRunner(resolve(FAST, tmp_path))
    return Loop(runner, Limits(max_sequences=2, kv_cells=4096, max_queued=3))


def request(id: str = "draft", **options: object) -> Request:
    return Request(id=id, messages=({"role": "user", "text": "tulips in spring"},), **options)  # type: ignore[arg-type]


def finish(loop: Loop, first: Batch) -> list[tuple[int, Event | EngineError]]:
    items = list(first.items)
    while not loop.is_idle:
        items += loop.turn([]).items
    return items


def reasons(items: list[tuple[int, Event | EngineError]]) -> dict[int, str | None]:
    return {ticket: item.finish_reason for ticket, item in items if isinstance(item, Event)}


def test_a_request_is_written_to_its_end(loop: Loop) -> None:
    items = finish(loop, loop.turn([Submit(0, request())]))
    events = [item for _, item in items if isinstance(item, Event)]
    assert len("".join(event.text for event in events).split()) == 6
    assert [event.finish_reason for event in events] == [None] * 6 + ["end"]


def test_a_step_serves_every_running_request(loop: Loop) -> None:
    batch = loop.turn([Submit(0, request("one")), Submit(1, request("two"))])
    assert [ticket for ticket, _ in batch.items] == [0, 1]
    assert (batch.stats.active, batch.stats.num_steps) == (2, 1)


def test_max_tokens_ends_an_answer(loop: Loop) -> None:
    items = finish(loop, loop.turn([Submit(0, request(sampling=Sampling(max_tokens=2)))]))
    assert reasons(items) == {0: "length"}
    assert sum(len(item.token_ids) for _, item in items if isinstance(item, Event)) == 2


def test_an_answer_that_was_complete_ends_at_once(loop: Loop) -> None:
    full = request(sampling=Sampling(max_tokens=2), resume_ids=(1, 2))
    assert reasons(list(loop.turn([Submit(0, full)]).items)) == {0: "length"}
    assert loop.is_idle


@pytest.mark.parametrize("ticket", [0, 2])
def test_cancel_ends_a_running_and_a_waiting_request(loop: Loop, ticket: int) -> None:
    loop.turn([Submit(number, request(str(number))) for number in range(3)])
    items = finish(loop, loop.turn([Cancel(ticket)]))
    assert reasons(items) == {0: "end", 1: "end", 2: "end"} | {ticket: "cancelled"}


def test_cancel_of_what_has_ended_is_harmless(loop: Loop) -> None:
    assert loop.turn([Cancel(7)]).items == ()


def test_the_deadline_ends_a_request(loop: Loop) -> None:
    items = loop.turn([Submit(0, request(deadline_s=1e-9))]).items
    assert reasons(list(items)) == {0: "deadline"}


def test_a_full_queue_says_when_to_come_back(loop: Loop) -> None:
    items = loop.turn([Submit(number, request(str(number))) for number in range(6)]).items
    busy = [item for _, item in items if isinstance(item, EngineBusy)]
    assert len(busy) == 3
    assert busy[0].retry_after_s >= 1


def test_a_megabyte_is_refused_before_it_is_tokenised(loop: Loop) -> None:
    huge = Request(id="huge", messages=({"role": "user", "text": "x" * 1_000_000},))
    ((ticket, item),) = loop.turn([Submit(0, huge)]).items
    assert ticket == 0
    assert isinstance(item, InvalidRequest)


def test_a_broken_adapter_fails_its_own_requests_only(loop: Loop, tmp_path: Path) -> None:
    missing = AdapterRef(sha256="0" * 64, path=str(tmp_path / "missing"))
    items = finish(
        loop, loop.turn([Submit(0, request("plain")), Submit(1, request("tuned", adapter=missing))])
    )
    assert reasons(items) == {0: "end"}
    assert [ticket for ticket, item in items if isinstance(item, AdapterUnavailable)] == [1]
