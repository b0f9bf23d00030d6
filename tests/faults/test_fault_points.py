"""Fault points: do what the plan says, exactly there, and never where people work."""

import os
import signal
import subprocess
import sys
import time

import pytest
from django.core.exceptions import ImproperlyConfigured

from apps.common import faults
from apps.common.faults import InjectedFault, parse, planned
from tests.support.stack import ROOT


def test_without_a_plan_a_point_does_nothing() -> None:
    assert faults.fault_point is planned([]) is faults.no_fault


def test_a_plan_names_points_actions_and_probabilities() -> None:
    first, second = parse("after_chunk_commit:raise:0.25, before_hint:sleep=0.05,")
    assert (first.point, first.probability) == ("after_chunk_commit", 0.25)
    assert (second.point, second.probability) == ("before_hint", 1.0)

    point = planned([second])
    began = time.monotonic()
    point("after_chunk_commit")
    assert time.monotonic() - began < 0.05
    point("before_hint")
    assert time.monotonic() - began >= 0.05


def test_a_probability_is_kept_to() -> None:
    point, num_raised = planned(parse("before_hint:raise:0.25")), 0
    for _ in range(4000):
        try:
            point("before_hint")
        except InjectedFault:
            num_raised += 1
    assert 800 < num_raised < 1200


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        ("after_lunch:kill", "after_lunch"),
        ("before_hint", "before_hint"),
        ("before_hint:explode", "explode"),
        ("before_hint:sleep", "sleep"),
        ("before_hint:sleep=long", "long"),
        ("before_hint:kill=3", "kill=3"),
        ("before_hint:kill:often", "often"),
        ("before_hint:kill:0", "probability"),
        ("before_hint:kill:1.5", "probability"),
        ("before_hint:kill:nan", "probability"),
        ("before_hint:kill:1:1", "1:1"),
    ],
)
def test_a_plan_that_would_not_do_what_it_says_is_refused(plan: str, complaint: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=complaint):
        parse(plan)


@pytest.mark.parametrize(("action", "status"), [("kill", -signal.SIGKILL), ("exit", 1)])
def test_a_process_dies_at_its_point(action: str, status: int) -> None:
    assert _start(f"before_hint:{action}", GALLEY_FAULTS_ALLOWED="1").returncode == status


def test_a_process_stops_at_its_point_until_it_is_continued() -> None:
    environment = _environment("before_hint:stop", GALLEY_FAULTS_ALLOWED="1")
    with subprocess.Popen([sys.executable, "-c", _PROGRAM], cwd=ROOT, env=environment) as process:
        _pid, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        assert process.wait() == 0


@pytest.mark.parametrize("environment", [{}, {"GALLEY_FAULTS_ALLOWED": "1", "GALLEY_HTTPS": "1"}])
def test_a_copy_that_is_not_under_test_does_not_start_with_a_plan(environment: dict[str, str]) -> None:
    refused = _start("before_hint:kill", **environment)
    assert refused.returncode == 1
    assert "FAULT makes processes die on purpose: unset it." in refused.stderr


def test_a_misspelt_plan_stops_the_start() -> None:
    refused = _start("before_hnit:kill", GALLEY_FAULTS_ALLOWED="1")
    assert "before_hnit" in refused.stderr


_PROGRAM = """
import django
django.setup()
from apps.common.faults import fault_point
fault_point("after_chunk_commit")
fault_point("before_hint")
"""


def _start(plan: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", _PROGRAM]
    return subprocess.run(
        command, cwd=ROOT, env=_environment(plan, **environment), text=True, capture_output=True
    )


def _environment(plan: str, **more: str) -> dict[str, str]:
    return {**os.environ, "DJANGO_SETTINGS_MODULE": "galley.settings", "FAULT": plan, **more}
