"""Scheduling without weights: cells are lists of token ids, and a step writes into them."""

from collections.abc import Sequence as Seq
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.costs import UNMEASURED, CostTable
from inference.engine.scheduler import Limits, Row, Scheduler, Step
from inference.engine.sequence import Sequence
from inference.types import AdapterRef, Request, RequestClass, Sampling

STEEP = CostTable({1: 1.0, 2: 2.5, 512: 1000.0})
"""A second row costs more than the first."""

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
    user: str = "",
    style: int = 0,
    num_shared: int = 0,
    reproducible: bool = False,
) -> Sequence:
    """A prompt whose first `num_shared` tokens are those of the style, the others its own."""
    request = Request(
        id=str(ticket),
        messages=({"role": "user", "text": "tulips"},),
        sampling=Sampling(max_tokens=answer),
        adapter=adapter,
        request_class=request_class,
        user=user,
        reproducible=reproducible,
    )
    return Sequence.start(
        ticket=ticket,
        request=request,
        prompt_ids=[style] * num_shared + [1000 + ticket] * (prompt - num_shared),
        num_shared=num_shared,
        context_length=1000,
        now=0.0,
    )


def scheduler(*sequences: Sequence, costs: CostTable = UNMEASURED, **limits: int) -> Scheduler:
    made = Scheduler(Limits(**{"max_sequences": 16, "kv_cells": 1000, **limits}), costs)
    for each in sequences:
        made.add(each)
    return made


class Backend:
    """Carries steps out on cells that hold token ids, and on a disk of prefixes."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.cells: dict[tuple[str | None, int], list[int]] = {}
        self.parked: dict[int, list[int]] = {}
        self.disk: set[tuple[str | None, tuple[int, ...]]] = set()
        self.num_computed = 0

    def carry_out(self, step: Step) -> None:
        lane = step.lane
        for one in step.parked:
            if one.sequence.ticket in self.parked:
                continue  # it had no turn since it was parked before
            self.parked[one.sequence.ticket] = self.cells.pop((one.sequence.lane, one.slot))
        self.cells = {place: held for place, held in self.cells.items() if place[0] not in step.closed}
        for slot in step.dropped:
            self.cells.pop((lane, slot), None)
        for prefix in step.lookups:
            if (lane, prefix.ids) in self.disk:
                self.cells[lane, prefix.slot] = list(prefix.ids)
                prefix.is_ready = True
        for copy in step.copies:
            held = self.cells[lane, copy.source][: copy.num_tokens]
            assert len(held) == copy.num_tokens, "shared before it was computed"
            self.cells[lane, copy.target] = held
        self.disk |= {(lane, prefix.ids) for prefix in step.built}
        for row in step.rows:
            self._compute(lane, row)

    def _compute(self, lane: str | None, row: Row) -> None:
        sequence, place = row.sequence, (lane, row.sequence.slot)
        if sequence.ticket in self.parked:
            self.cells[place] = self.parked.pop(sequence.ticket)
        held = self.cells.setdefault(place, [])
        assert held == sequence.ids[: sequence.num_computed], "the cells hold another text"
        held += row.token_ids
        self.num_computed += row.num_tokens
        samples = row.samples
        sequence.num_computed += row.num_tokens
        if samples:
            sequence.append(8, b"x")
            if sequence.is_full:
                self.scheduler.remove(sequence)
                self.cells.pop(place)


def carry_out(scheduler: Scheduler, step: Step) -> None:
    backends.setdefault(scheduler, Backend(scheduler)).carry_out(step)


backends: WeakKeyDictionary[Scheduler, Backend] = WeakKeyDictionary()


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
    assert plan(queue.schedule()) == [(0, 1), (1, 32)]


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


def test_a_person_displaces_the_batch_text_that_began_last() -> None:
    batch = [sequence(ticket, answer=50, request_class="batch") for ticket in range(4)]
    queue = scheduler(*batch, max_sequences=4)
    queue.add(sequence(8, answer=50))
    run_step(queue)
    assert sorted(tickets(queue.running)) == [0, 1, 2, 8]
    run_step(queue)
    queue.add(sequence(9))
    step = run_step(queue)
    assert [one.sequence.ticket for one in step.parked] == [2]
    assert sorted(tickets(queue.running)) == [0, 1, 8, 9]
    while 9 in tickets(queue.running):
        run_step(queue)
    while not queue.is_idle:
        run_step(queue)
    assert all(each.is_full for each in batch)


def test_a_quarter_of_the_slots_waits_for_people() -> None:
    queue = scheduler(*(sequence(i, request_class="batch") for i in range(9)), max_sequences=8)
    run_step(queue)
    assert len(queue.running) == 6
    for ticket in (20, 21):
        queue.add(sequence(ticket))
    assert run_step(queue).parked == ()
    assert len(queue.running) == 8


def test_people_leave_the_batch_class_its_share() -> None:
    queue = scheduler(max_sequences=9)
    for ticket in range(5):
        queue.add(sequence(ticket, answer=100, request_class="batch"))
    for ticket in range(5, 40):
        queue.add(sequence(ticket, answer=100))
    run_step(queue)
    run_step(queue)
    assert sum(each.request.request_class == "batch" for each in queue.running) >= 1


def test_a_person_without_cells_displaces_batch_texts_of_the_lane() -> None:
    queue = scheduler(*(sequence(i, prompt=190, answer=10, request_class="batch") for i in range(5)))
    run_step(queue)
    queue.add(sequence(9, prompt=300, answer=10))
    run_step(queue)
    assert sorted(tickets(queue.running)) == [0, 1, 2, 9]


def test_users_take_turns_whatever_they_queue() -> None:
    queue = scheduler(max_sequences=1)
    for ticket in range(6):
        queue.add(sequence(ticket, user="anna"))
    queue.add(sequence(6, user="ben"))
    queue.add(sequence(7, user="ben"))
    order = []
    while not queue.is_idle:
        step = run_step(queue)
        order += [row.sequence.ticket for row in step.rows if row.sequence.ticket not in order]
    assert order == [0, 6, 1, 7, 2, 3, 4, 5]


def test_batch_texts_beside_people_are_as_many_as_the_costs_allow() -> None:
    """Four rows cost twice one row; the fifth is a step up."""
    queue = scheduler(costs=CostTable({1: 1.0, 4: 2.0, 5: 4.0, 512: 400.0}))
    for ticket in range(6):
        queue.add(sequence(ticket, answer=50, prompt=1, request_class="batch"))
    run_step(queue)
    queue.add(sequence(9, prompt=1, answer=50))
    run_step(queue)
    rows = [plan(run_step(queue)) for _ in range(6)]
    assert all(len(row) == 4 and row[0] == (9, 1) for row in rows)
    assert {ticket for row in rows for ticket, _ in row} == {0, 1, 2, 3, 4, 5, 9}


def test_batch_texts_pause_while_a_person_waits_for_a_first_word() -> None:
    queue = scheduler(*(sequence(i, answer=50, request_class="batch") for i in range(4)))
    run_step(queue)
    queue.add(sequence(9, prompt=300))
    assert plan(run_step(queue)) == [(9, 300)]
    assert len(plan(run_step(queue))) == 5


def test_people_who_keep_coming_cannot_stop_a_batch_text() -> None:
    queue = scheduler(sequence(0, answer=50, request_class="batch"), max_sequences=100, kv_cells=100_000)
    run_step(queue)
    waits: list[int] = []
    wait = 0
    for ticket in range(1, 60):
        queue.add(sequence(ticket, answer=1))
        wrote_batch = any(row.sequence.ticket == 0 for row in run_step(queue).rows)
        waits, wait = ([*waits, wait], 0) if wrote_batch else (waits, wait + 1)
    assert len(waits) >= 5
    assert max(waits) == 8


def test_a_batch_text_gets_on_even_where_every_row_costs_as_much_as_a_step() -> None:
    queue = scheduler(sequence(0, answer=90, prompt=1, request_class="batch"), costs=STEEP)
    queue.add(sequence(1, answer=90, prompt=1))
    rows = [ticket for _ in range(45) for ticket, _ in plan(run_step(queue))]
    assert rows.count(0) == 5


def test_a_step_of_a_backlog_is_short_in_case_a_person_comes() -> None:
    """Sixteen rows cost 1.47 here, twice that buys 63."""
    queue = scheduler(sequence(0, prompt=700, request_class="batch"))
    assert plan(queue.schedule()) == [(0, 63)]


def test_a_beginning_that_a_person_waits_for_comes_first_whoever_computes_it() -> None:
    queue = scheduler(sequence(0, prompt=200, num_shared=190, request_class="batch"), max_prefixes=2)
    run_step(queue)
    run_step(queue)
    queue.add(sequence(9, prompt=200, num_shared=190))
    assert plan(run_step(queue)) == [(0, 127)]
    assert plan(run_step(queue)) == [(9, 10)]


def test_prompts_of_two_adapters_are_read_side_by_side() -> None:
    queue = scheduler(sequence(0, prompt=120, adapter=FINANCE), sequence(1, prompt=120, adapter=SPORTS))
    steps = [plan(run_step(queue)) for _ in range(4)]
    assert steps == [[(0, 63)], [(1, 63)], [(0, 57)], [(1, 57)]]


def test_lanes_get_the_same_time_and_not_the_same_turns() -> None:
    """Eight texts cost four times one."""
    queue = scheduler(costs=CostTable({1: 1.0, 8: 4.0, 512: 256.0}), max_sequences=9)
    queue.add(sequence(8, answer=90, prompt=1, adapter=FINANCE))
    for ticket in range(8):
        queue.add(sequence(ticket, answer=90, prompt=1))
    turns = [run_step(queue).adapter for _ in range(50)]
    assert turns.count(FINANCE) == 40


def test_a_lane_that_was_away_starts_level_with_the_others() -> None:
    queue = scheduler(sequence(0, answer=100, prompt=1))
    for _ in range(20):
        run_step(queue)
    queue.add(sequence(1, answer=100, prompt=1, adapter=FINANCE))
    turns = [run_step(queue).adapter for _ in range(20)]
    assert turns.count(FINANCE) == 10


def test_one_computes_the_shared_beginning_and_the_others_wait_for_it() -> None:
    queue = scheduler(*(sequence(i, prompt=60, num_shared=50) for i in range(4)), max_prefixes=2)
    lookup, first, second = run_step(queue), run_step(queue), run_step(queue)
    assert lookup.rows == ()
    assert plan(first) == [(0, 50)]
    assert plan(second) == [(0, 10), (1, 10), (2, 10), (3, 10)]


def test_who_wants_to_be_reproducible_is_computed_alone() -> None:
    queue = scheduler(*(sequence(i, prompt=60, num_shared=50) for i in range(3)), max_prefixes=2)
    alone = [sequence(i, prompt=60, num_shared=50, reproducible=True) for i in (7, 8)]
    for each in alone:
        queue.add(each)
    steps = []
    while not queue.is_idle:
        steps.append(plan(run_step(queue)))
    solo = [step for step in steps if any(ticket > 6 for ticket, _ in step)]
    assert solo == [[(t, n)] for t in (7, 8) for n in (50, 10, 1, 1, 1, 1)]


def test_a_beginning_stays_for_those_who_come_later() -> None:
    queue = scheduler(sequence(0, prompt=60, num_shared=50), max_prefixes=2)
    while not queue.is_idle:
        run_step(queue)
    queue.add(sequence(1, prompt=60, num_shared=50))
    assert plan(run_step(queue)) == [(1, 10)]


def test_a_beginning_on_disk_is_computed_by_nobody() -> None:
    queue = scheduler(*(sequence(i, prompt=60, num_shared=50) for i in range(2)), max_prefixes=2)
    backends[queue] = Backend(queue)
    backends[queue].disk = {(None, (0,) * 50)}
    run_step(queue)
    assert plan(run_step(queue)) == [(0, 10), (1, 10)]


def test_when_the_builder_leaves_another_takes_over() -> None:
    first, second = (sequence(i, prompt=600, num_shared=590) for i in range(2))
    queue = scheduler(first, second, max_prefixes=2, kv_cells=2000)
    run_step(queue)
    assert plan(run_step(queue)) == [(0, 512)]
    queue.remove(first)
    assert plan(run_step(queue)) == [(1, 512)]
    while not queue.is_idle:
        run_step(queue)
    assert second.is_full


def test_a_beginning_that_nobody_uses_makes_room() -> None:
    queue = scheduler(sequence(0, prompt=600, num_shared=590), max_prefixes=2)
    while not queue.is_idle:
        run_step(queue)
    assert queue.num_prefix_tokens == 590
    queue.add(sequence(1, prompt=700))
    step = run_step(queue)
    assert len(step.dropped) == 1
    assert queue.num_prefix_tokens == 0


arrivals: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.builds(
        dict,
        prompt=st.integers(60, 400),
        answer=st.integers(1, 40),
        adapter=st.sampled_from([None, FINANCE, SPORTS, TRAVEL]),
        request_class=st.sampled_from(["interactive", "batch"]),
        user=st.sampled_from(["anna", "ben"]),
        style=st.integers(0, 3),
        num_shared=st.sampled_from([0, 16, 50]),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(arrivals, st.integers(1, 4), st.integers(0, 3), st.data())
def test_any_traffic_runs_to_its_end_within_the_limits(
    traffic: list[dict[str, Any]], max_lanes: int, max_prefixes: int, data: st.DataObject
) -> None:
    queue = scheduler(
        max_lanes=max_lanes, max_prefixes=max_prefixes, max_sequences=4, kv_cells=500, quantum=3
    )
    for ticket, options in enumerate(traffic):
        queue.add(sequence(ticket, **options))
        for _ in range(data.draw(st.integers(0, 3))):
            if step := queue.schedule():
                check_limits(queue, step)
                carry_out(queue, step)
        leaves = data.draw(st.integers(0, 9))  # one of those that wait, or nobody
        if leaves < len(queue.waiting):
            queue.remove(queue.waiting[leaves])
    for _ in range(4000):
        if queue.is_idle:
            return
        step = queue.schedule()
        if step is None:
            continue
        check_limits(queue, step)
        carry_out(queue, step)
    pytest.fail("the traffic never ended")


def check_limits(queue: Scheduler, step: Step) -> None:
    assert len(queue.running) <= queue.limits.max_sequences
    assert len(queue.lanes) <= queue.limits.max_lanes
    assert sum(row.num_tokens for row in step.rows) <= queue.limits.step_tokens + queue.limits.max_sequences
    for key in queue.lanes:
        lane = [each for each in queue.running if each.lane == key]
        assert len({each.slot for each in lane}) == len(lane)
