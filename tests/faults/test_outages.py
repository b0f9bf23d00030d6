"""Redis and PostgreSQL go away under real load: nothing lost, nothing twice, and on within the limits."""

import pytest

from tests.faults.outages import PLANS
from tests.faults.scenarios import Plan
from tests.faults.stage import Stage


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan.quick], ids=lambda plan: plan.name)
def test_nothing_is_lost(plan: Plan, stage: Stage) -> None:
    tally = plan.play(stage, plan.quick)
    print(tally, tally.note)
    assert tally.holds, tally


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_nothing_is_lost_in_the_long_run(plan: Plan, stage: Stage) -> None:
    tally = plan.play(stage, plan.long)
    print(tally, tally.note)
    assert tally.holds, tally
