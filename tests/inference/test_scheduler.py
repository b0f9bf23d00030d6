"""Scheduling without weights: a step is carried out by moving counters."""

from collections.abc import Sequence as Seq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.scheduler import Limits, Scheduler, Step
from inference.engine.sequence import Sequence
from inference.types import AdapterRef, Request, RequestClass, Sampling

FINANCE = AdapterRef(sha256="finance", path="finance")
SPORTS = AdapterRef(sha256="sports", path="sports")
TRAVEL = AdapterRef(sha256="travel", path="travel")


def sequence(
    ticket: int = 0,
    *,
    prompt: int = 10,
    answer: int = 5,
    adapter: AdapterRef | None = None,
    request_class: RequestClass = "interactive",
) -> Sequence:
    request = Request(
        id=str(ticket),
        messages=({"role": "user", "text": "tulips"},),
        sampling=Sampling(max_tokens=answer),
        adapter=adapter,
        request_class=request_class,
    )
    return Sequence.start(
        ticket=ticket, request=request, prompt_ids=[7] * prompt, context_length=1000, now=0.0
    )


def scheduler(*sequences: Sequence, **limits: int) -> Scheduler:
    made = Scheduler(Limits(**{"max_sequences": 16, "kv_cells": 1000, **limits}))
    for each in sequences:
        made.add(each)
    return made


def carry_out(scheduler: Scheduler, step: Step) -> None:
    for row in step.rows:
        samples = row.samples
        row.sequence.num_computed += row.num_tokens
        if samples:
            row.sequence.append(8, b"x")
            if row.sequence.is_full:
                scheduler.remove(row.sequence)


def plan(step: Step | None) -> list[tuple[int, int]]:
    """(ticket, number of tokens) of each row."""
    assert step is not None
    return [(row.sequence.ticket, row.num_tokens) for row in step.rows]


def run_step(scheduler: Scheduler) -> Step:
    step = scheduler.schedule()
    assert step is not None
    carry_out(scheduler, step)
    return step


def tickets(sequences: Seq[Sequence]) -> list[int]:
    return [each.ticket for each in sequences]


def test_a_sequence_is_prefilled_then_decoded_to_its_end() -> None:
    queue = scheduler(sequence(prompt=10, answer=3))
    assert [plan(run_step(queue)) for _ in range(3)] == [[(0, 10)], [(0, 1)], [(0, 1)]]
    assert queue.schedule() is None
    assert queue.is_idle


def test_a_long_prompt_is_prefilled_in_chunks_and_samples_only_at_its_end() -> None:
    queue = scheduler(sequence(prompt=700))
    first, second = run_step(queue), run_step(queue)
    assert plan(first) == [(0, 512)]
    assert plan(second) == [(0, 188)]
    assert len(queue.running[0].ids) == 701  # one token, sampled by the second step


def test_decodes_stand_first_and_leave_a_prefill_few_rows() -> None:
    queue = scheduler(sequence(0))
    run_step(queue)
    queue.add(sequence(1, prompt=100))
    assert plan(queue.schedule()) == [(0, 1), (1, 64)]


def test_sequences_of_one_adapter_share_a_step() -> None:
    queue = scheduler(*(sequence(ticket, adapter=FINANCE) for ticket in range(8)))
    assert plan(queue.schedule()) == [(ticket, 10) for ticket in range(8)]


def test_lanes_take_turns() -> None:
    queue = scheduler(sequence(0), sequence(1, adapter=FINANCE))
    assert [run_step(queue).adapter for _ in range(4)] == [None, FINANCE, None, FINANCE]


def test_interactive_is_admitted_before_batch() -> None:
    queue = scheduler(sequence(0, request_class="batch"), sequence(1), max_sequences=1)
    assert plan(queue.schedule()) == [(1, 10)]


def test_no_more_than_max_sequences_run() -> None:
    queue = scheduler(*map(sequence, range(5)), max_sequences=3)
    queue.schedule()
    assert tickets(queue.running) == [0, 1, 2]
    assert tickets(queue.waiting) == [3, 4]


def test_a_sequence_without_cells_waits_and_is_not_overtaken_in_its_lane() -> None:
    running, big, small = sequence(0, prompt=100), sequence(1, prompt=950), sequence(2)
    queue = scheduler(running, big, small, sequence(3, adapter=FINANCE))
    queue.schedule()
    assert sorted(tickets(queue.running)) == [0, 3]
    queue.remove(running)
    queue.schedule()
    assert sorted(tickets(queue.running)) == [1, 2, 3]


def test_the_lane_idle_for_longest_is_given_up() -> None:
    queue = scheduler(max_lanes=2)
    for ticket, adapter in enumerate([FINANCE, SPORTS, TRAVEL]):
        queue.add(sequence(ticket, answer=1, adapter=adapter))
        step = run_step(queue)
    assert step.closed == ("finance",)
    assert queue.lanes == ("sports", "travel")


def test_a_third_adapter_is_not_starved_by_two_busy_ones() -> None:
    queue = scheduler(
        sequence(0, adapter=FINANCE), sequence(1, adapter=SPORTS), sequence(2, adapter=TRAVEL), max_lanes=2
    )
    for ticket in range(3, 40):
        queue.add(sequence(ticket, adapter=FINANCE))
        run_step(queue)
        if 2 in tickets(queue.running):
            return
    pytest.fail("travel never ran")


def test_what_is_late_is_found_wherever_it_stands() -> None:
    queue = scheduler(sequence(0), sequence(1), max_sequences=1)
    queue.schedule()
    assert tickets(queue.expired(now=299.0)) == []
    assert tickets(queue.expired(now=300.0)) == [0, 1]


def test_a_dropped_lane_gives_its_sequences_back_and_leaves_the_others() -> None:
    queue = scheduler(sequence(0), sequence(1, adapter=FINANCE))
    queue.schedule()
    assert tickets(queue.drop_lane("finance")) == [1]
    assert tickets(queue.running) == [0]


arrivals = st.lists(
    st.tuples(
        st.integers(1, 400),
        st.integers(1, 40),
        st.sampled_from([None, FINANCE, SPORTS, TRAVEL]),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(arrivals, st.integers(1, 4), st.data())
def test_any_traffic_runs_to_its_end_within_the_limits(
    traffic: list[tuple[int, int, AdapterRef | None, bool]], max_lanes: int, data: st.DataObject
) -> None:
    queue = scheduler(max_lanes=max_lanes, max_sequences=4, kv_cells=500)
    for ticket, (prompt, answer, adapter, is_batch) in enumerate(traffic):
        kind: RequestClass = "batch" if is_batch else "interactive"
        queue.add(sequence(ticket, prompt=prompt, answer=answer, adapter=adapter, request_class=kind))
        for _ in range(data.draw(st.integers(0, 3))):
            if step := queue.schedule():
                check_limits(queue, step)
                carry_out(queue, step)
    for _ in range(2000):
        if queue.is_idle:
            return
        step = queue.schedule()
        assert step is not None, "work is waiting and nothing runs"
        check_limits(queue, step)
        carry_out(queue, step)
    pytest.fail("the traffic never ended")


def check_limits(queue: Scheduler, step: Step) -> None:
    assert len(queue.running) <= queue.limits.max_sequences
    assert len(queue.lanes) <= queue.limits.max_lanes
    assert sum(row.num_tokens for row in step.rows) <= queue.limits.step_tokens + queue.limits.max_sequences
    for key in queue.lanes:
        lane = [each for each in queue.running if each.lane == key]
        assert sum(each.max_ids for each in lane) <= queue.limits.kv_cells
        assert len({each.slot for each in lane}) == len(lane)
