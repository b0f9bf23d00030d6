"""A writing worker on another machine: it needs two addresses and a folder, and survives a cut cable."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.house import wait_until
from tests.faults.stage import Stage, Tally, on_stage
from tests.faults.two_machines import THERE, TwoMachines, two_machines, what_is_missing

RECOVERY_S = 60.0


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoMachines]:
    if missing := what_is_missing():
        pytest.skip(missing)
    with two_machines(tmp_path_factory.mktemp("machines") / "home") as machines:
        yield machines


@pytest.fixture(scope="module")
def people(machines: TwoMachines) -> dict[str, object]:
    found: dict[str, object] = machines.run_module("tests.faults.people")
    return found


@pytest.fixture
def stage(machines: TwoMachines, people: dict[str, object], tmp_path: Path) -> Iterator[Stage]:
    with on_stage(machines, people, tmp_path) as stage:
        yield stage


@pytest.mark.slow
def test_a_worker_joins_over_two_addresses_and_a_folder(stage: Stage, machines: TwoMachines) -> None:
    adapter = machines.run_module("tests.faults.released")
    [viewer] = stage.play(1)
    stage.wait_for_token([viewer])

    assert machines.addresses_of_the_worker() == {THERE}
    stage.verify(Tally("second machine", limit_s=0))

    [(pinned,)] = machines.query("SELECT adapter_sha256 FROM drafts_draft WHERE id = %s", viewer.draft_id)
    assert pinned == adapter
    assert (machines.other_home / "cache" / "adapters" / adapter).is_dir(), "fetched over the store"
    assert not (machines.home / "cache" / "adapters").exists()


@pytest.mark.slow
@pytest.mark.parametrize("cut_s", [5.0, 15.0, 60.0])
def test_a_cable_that_is_cut_in_mid_draft_loses_nothing(
    cut_s: float, stage: Stage, machines: TwoMachines
) -> None:
    """15 s is longer than the lease and than both ends believe in a silent connection."""
    tally = Tally(f"cable cut for {cut_s:.0f} s", limit_s=RECOVERY_S)
    watching = stage.play(3)
    stage.wait_for_token(watching, share=0.2)
    machines.cable.cut()
    try:
        time.sleep(cut_s)
    finally:
        machines.cable.mend()
    mended_at = time.monotonic()
    wait_until(
        lambda: not machines.query("SELECT 1 FROM drafts_job WHERE state IN ('queued', 'running')"),
        deadline_s=RECOVERY_S,
        what="the worker goes on",
    )
    tally.recovered(time.monotonic() - mended_at)
    following = stage.play(1)
    stage.verify(tally)
    print(tally)
    assert tally.holds, tally
    assert following[0].longest_silence_s < 10
