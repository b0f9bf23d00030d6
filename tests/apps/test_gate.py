"""judge(): each check green at its bar and red beyond it."""

from dataclasses import replace
from typing import Any

import pytest

from apps.tuning.gate import GateCheck, HeldOutText, Measured, as_rows, judge

APPROVED = "RIVERSIDE. The doors open on 4 May and entry is free for everybody on Sundays."
LIVE = Measured(
    loss=2.0,
    texts=(
        HeldOutText(approved=APPROVED, written=APPROVED[11:], ended=True, must_say=("doors open on 4 May",)),
        HeldOutText(approved=APPROVED, written=APPROVED[11:], ended=True, must_say=("entry is free",)),
    ),
)


def side(*, loss: float = 2.0, **changes: Any) -> Measured:
    """What the candidate has shown: the live model's texts with these changes in each."""
    return Measured(loss=loss, texts=tuple(replace(text, **changes) for text in LIVE.texts))


GOOD = side(loss=1.2, written=APPROVED)


def judged(candidate: Measured, name: str, *, live: Measured = LIVE) -> GateCheck:
    return next(check for check in judge(candidate=candidate, live=live) if check.name == name)


def test_an_adapter_that_learned_the_house_rule_passes_every_check() -> None:
    checks = judge(candidate=GOOD, live=LIVE)

    assert [(check.name, check.passed) for check in checks] == [
        ("likelihood", True),
        ("distance", True),
        ("facts", True),
        ("ended", True),
        ("length", True),
        ("effect", True),
    ]
    assert checks[1].candidate == 0.0
    assert checks[1].live is not None
    assert checks[1].live > 0.1


@pytest.mark.parametrize(("loss", "passed"), [(2.04, True), (2.05, False), (float("nan"), False)])
def test_the_loss_may_rise_by_two_percent(loss: float, passed: bool) -> None:
    assert judged(side(loss=loss), "likelihood").passed is passed


def test_drafts_that_need_more_editing_are_refused() -> None:
    assert judged(side(written=APPROVED[11:] + "!"), "distance").passed
    assert not judged(side(written=APPROVED[20:]), "distance").passed


def test_a_rise_within_chance_is_no_reason_to_refuse() -> None:
    better, worse = HeldOutText(approved=APPROVED, written=APPROVED, ended=True), LIVE.texts[0]
    mixed = Measured(loss=1.2, texts=(better, replace(worse, written=APPROVED[40:])))

    check = judged(mixed, "distance")

    assert check.live is not None
    assert check.candidate > check.live + 0.02
    assert check.passed


def test_one_text_says_nothing_of_the_distance() -> None:
    alone = Measured(loss=1.2, texts=(replace(LIVE.texts[0], written="Something else."),))

    assert judged(alone, "distance", live=Measured(loss=2.0, texts=LIVE.texts[:1])).passed


def test_drafts_that_lose_facts_are_refused() -> None:
    check = judged(side(written="RIVERSIDE. Nothing to report."), "facts")

    assert (check.candidate, check.live, check.passed) == (0.0, 1.0, False)


def test_one_fact_fewer_is_noise() -> None:
    assert judged(side(written="RIVERSIDE. The doors open on 4 May."), "facts").passed


def test_drafts_that_do_not_end_are_refused() -> None:
    assert not judged(side(ended=False), "ended").passed


def test_a_base_that_does_not_end_either_is_no_reason_to_refuse() -> None:
    assert judged(side(ended=False), "ended", live=side(ended=False)).passed


def test_drafts_that_run_on_are_refused() -> None:
    assert judged(side(written=APPROVED + APPROVED[:30]), "length").passed
    assert not judged(side(written=APPROVED * 2), "length").passed


def test_an_adapter_that_changes_nothing_is_refused() -> None:
    """As when the runtime has silently not applied it."""
    check = judged(LIVE, "effect")

    assert (check.candidate, check.live, check.passed) == (0.0, None, False)


def test_the_rows_are_kept_with_every_figure() -> None:
    row = as_rows(judge(candidate=GOOD, live=LIVE))[0]

    assert row == {
        "name": "likelihood", "label": "Loss on approved text", "candidate": 1.2, "live": 2.0,
        "bar": "at most 1.02 × live", "passed": True,
    }  # fmt: skip
