"""Process deaths and outages under load: what was lost, what came twice, and how long people waited.

In full it takes hours; BENCH_FAULTS_SHARE=0.05 plays that part of each scenario's trials.
"""

import os
import tempfile
from math import ceil
from pathlib import Path

from bench.form import ONLY, Row
from galley.launcher.errors import Refused

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "galley.settings")

from tests.faults import outages, scenarios
from tests.faults.stage import Stage, Tally, on_stage, opened

PLANS = (*scenarios.PLANS, *outages.PLANS)
SHARE = float(os.environ.get("BENCH_FAULTS_SHARE") or 1)


def measure() -> list[Row]:
    plans = [plan for plan in PLANS if not ONLY or plan.name in ONLY]
    with (
        tempfile.TemporaryDirectory(prefix="galley-bench-") as folder,
        opened(Path(folder) / "home", num_workers=3) as (house, people),
    ):
        rows = []
        for plan in plans:
            with on_stage(house, people, Path(folder) / plan.name) as stage:
                rows.append(_played(plan, stage))
            print(rows[-1], flush=True)
        return rows


def _played(plan: scenarios.Plan, stage: Stage) -> Row:
    """A scenario that breaks off is a row too: the others still count."""
    try:
        return _row(plan.play(stage, ceil(plan.long * SHARE)))
    except (AssertionError, Refused) as error:
        claim = f"{plan.name} broke off: {str(error).splitlines()[0]}"
        return Row(claim=claim, figure=0, unit="", bar="0 lost, 0 twice", holds=False)


def _row(tally: Tally) -> Row:
    return Row(
        claim=f"{tally.scenario}, {tally.trials} trials: {tally.lost} lost, {tally.twice} twice; worst wait",
        figure=round(tally.worst_s, 2),
        unit="s",
        peer=f"median {tally.median_s:.2f} s",
        bar=f"0 lost, 0 twice, <= {tally.limit_s:g} s",
        holds=tally.holds,
    )
