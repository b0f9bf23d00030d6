"""Costs are measured once for one machine, in bounded time."""

from pathlib import Path

import pytest

from inference.backends.costs import SIZES, measured_costs


class Machine:
    """Needs `base` seconds for a pass and `each` for a token; the passes are counted."""

    def __init__(self, *, base: float = 0.001, each: float = 0.0001) -> None:
        self.base, self.each = base, each
        self.passes: list[int] = []

    def __call__(self, num_tokens: int) -> float:
        self.passes.append(num_tokens)
        return self.base + self.each * num_tokens


def test_all_sizes_are_measured_in_milliseconds() -> None:
    machine = Machine()
    costs = measured_costs(machine, key=("model",), cache=None)
    assert [costs.of(n) for n in (1, 16, 128)] == pytest.approx([1.1, 2.6, 13.8])
    assert set(machine.passes) == set(SIZES)


def test_the_best_of_all_rounds_counts() -> None:
    machine = Machine()
    disturbed = iter([9.0, 9.0])  # the pass that finds memory, and one beside which others computed
    costs = measured_costs(
        lambda size: machine(size) + next(disturbed, 0.0),
        key=("model",),
        cache=None,
        sizes=(1, 8),
        budget_s=60,
    )
    assert costs.of(1) == pytest.approx(1.1)


def test_they_are_kept_by_all_that_they_depend_on(tmp_path: Path) -> None:
    first = measured_costs(Machine(), key=("model", "cpu"), cache=tmp_path / "costs")
    unused = Machine(base=5.0)
    again = measured_costs(unused, key=("model", "cpu"), cache=tmp_path / "costs")
    other = measured_costs(Machine(base=0.002), key=("model", "gpu"), cache=tmp_path / "costs")
    assert not unused.passes
    assert again.of(20) == first.of(20) == pytest.approx(3.0)
    assert other.of(20) == pytest.approx(4.0)


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"1": 2.0}', '{"1": null, "2": 1}', '{"one": 1, "2": 1}']
)
def test_a_damaged_table_is_measured_anew(tmp_path: Path, content: str) -> None:
    measured_costs(Machine(), key=("model",), cache=tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_text(content)
    assert measured_costs(Machine(), key=("model",), cache=tmp_path).of(20) == pytest.approx(3.0)
    assert kept.read_text() != content


def test_a_slow_machine_measures_two_sizes_and_the_others_lie_on_their_line() -> None:
    machine = Machine(base=1.0, each=0.1)
    costs = measured_costs(machine, key=("model",), cache=None, budget_s=2.0)
    assert machine.passes == [1, 1, 32]
    assert costs.of(128) == pytest.approx(13_800)


def test_a_folder_that_cannot_be_written_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "costs").write_text("no folder")
    assert measured_costs(Machine(), key=("model",), cache=tmp_path / "costs").of(20) == pytest.approx(3.0)
