from collections.abc import Iterator
from itertools import pairwise

import pytest

from inference.backends import threads
from inference.backends.threads import Counters, ThreadGovernor


def governed(seconds: list[tuple[float, float]]) -> Iterator[int]:
    """Threads after each second, given (waited, idle) seconds of it; two cores."""
    totals = Counters(0.0, 0.0, 0.0)
    governor = ThreadGovernor(2, read=lambda: totals, clock=lambda: totals.clock)
    for waited, idle in seconds:
        totals = Counters(totals.clock + 1.0, totals.waited + waited, totals.idle + idle)
        yield governor.look()


QUIET, CROWDED, ROOM, NO_ROOM = (0.0, 0.0), (0.6, 0.0), (0.0, 1.0), (0.0, 0.4)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([QUIET] * 3, [2, 2, 2]),
        ([QUIET, CROWDED, CROWDED], [2, 1, 1]),
        ([CROWDED, NO_ROOM, NO_ROOM, NO_ROOM], [1, 1, 1, 1]),
        ([CROWDED, ROOM, ROOM, ROOM], [1, 1, 2, 2]),
        ([CROWDED, ROOM, CROWDED, ROOM, ROOM], [1, 1, 1, 1, 2]),
    ],
)
def test_threads_follow_the_neighbours(seconds: list[tuple[float, float]], expected: list[int]) -> None:
    assert list(governed(seconds)) == expected


def test_without_counters_the_number_stays() -> None:
    assert ThreadGovernor(4, read=lambda: None).look() == 4


def test_the_counters_of_this_machine_only_grow() -> None:
    readings = [threads.read_counters() for _ in range(3)]
    if None in readings:
        pytest.skip("no /proc on this machine")
    for before, after in pairwise(readings):
        assert before is not None
        assert after is not None
        assert after.clock >= before.clock
        assert after.idle >= before.idle


def test_there_is_at_least_one_core() -> None:
    assert threads.physical_cores() >= 1
