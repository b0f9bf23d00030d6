"""Process deaths under real load: nothing lost, nothing twice, and on again within the limits."""

import pytest

from tests.faults.scenarios import PLANS, Plan
from tests.faults.stage import Stage

SLACK = 3.0


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan.quick], ids=lambda plan: plan.name)
def test_nothing_is_lost(plan: Plan, stage: Stage) -> None:
    tally = plan.play(stage, plan.quick)
    assert tally.holds_within(SLACK), tally


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_nothing_is_lost_in_the_long_run(plan: Plan, stage: Stage) -> None:
    tally = plan.play(stage, plan.long)
    assert tally.holds_within(SLACK), tally
