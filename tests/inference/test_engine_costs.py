"""A staircase of costs is read as such."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.costs import CostTable

STAIRS = CostTable({1: 3.0, 4: 4.0, 5: 9.0, 8: 6.0, 16: 12.0})


def test_between_sizes_it_is_a_line_and_beyond_them_it_goes_on() -> None:
    assert [STAIRS.of(n) for n in (1, 4, 12, 24)] == [3.0, 4.0, 9.0, 18.0]


def test_a_larger_batch_that_was_cheaper_counts_for_the_smaller() -> None:
    assert STAIRS.of(5) == STAIRS.of(8) == 6.0


def test_the_most_that_costs_no_more() -> None:
    assert STAIRS.most_within(6.0, least=1, most=16) == 8
    assert STAIRS.most_within(100.0, least=1, most=16) == 16
    assert STAIRS.most_within(0.1, least=2, most=16) == 2


def test_one_size_is_no_table() -> None:
    with pytest.raises(ValueError, match="two"):
        CostTable({1: 1.0})


@given(st.dictionaries(st.integers(1, 200), st.floats(0.01, 100), min_size=2, max_size=10), st.floats(0, 200))
def test_what_fits_costs_no_more_and_one_more_does(milliseconds: dict[int, float], limit: float) -> None:
    table = CostTable(milliseconds)
    most = table.most_within(limit, least=1, most=300)
    assert most == 1 or table.of(most) <= limit
    assert most == 300 or table.of(most + 1) > limit
