"""Points in the code where a test can make the process die, hang or fail: exactly there, not "about then".

`FAULT=after_chunk_commit:kill:0.01,before_hint:sleep=2` names point, action and, where it is not 1,
the probability. Settings refuse it outside tests. Where it is unset, a point does nothing.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

POINTS = frozenset(
    {
        "before_doorbell",
        "before_claim_commit",
        "after_claim_commit",
        "before_begin_commit",
        "before_chunk_commit",
        "after_chunk_commit",
        "before_hint",
        "before_finish_commit",
        "after_finish_commit",
        "before_hand_back_commit",
    }
)


class InjectedFault(Exception):
    """What the action `raise` raises: nothing in the product expects it."""


def _die(number: int) -> None:
    os.kill(os.getpid(), number)


def _raise() -> None:
    raise InjectedFault


ACTIONS: dict[str, Callable[[], None]] = {
    "kill": partial(_die, signal.SIGKILL),
    "stop": partial(_die, signal.SIGSTOP),
    "exit": partial(os._exit, 1),
    "raise": _raise,
}


@dataclass(frozen=True)
class Fault:
    point: str
    act: Callable[[], None]
    probability: float = 1.0


def parse(plan: str) -> list[Fault]:
    """Raises ImproperlyConfigured for a plan that would not do what its author thinks."""
    return [_parse_one(entry.strip()) for entry in plan.split(",") if entry.strip()]


def _parse_one(entry: str) -> Fault:
    point, _colon, rest = entry.partition(":")
    action, _colon, share = rest.partition(":")
    if point not in POINTS:
        raise ImproperlyConfigured(f"FAULT names {point!r}; there are {', '.join(sorted(POINTS))}.")
    try:
        probability = float(share or 1)
        act = _action(action)
    except (ValueError, KeyError) as error:
        raise ImproperlyConfigured(
            f"FAULT cannot read {entry!r}: write POINT:ACTION or POINT:ACTION:PROBABILITY "
            f"with one of {', '.join(ACTIONS)}, sleep=SECONDS."
        ) from error
    if not 0 < probability <= 1:
        raise ImproperlyConfigured(f"FAULT: the probability of {entry!r} is not above 0 and up to 1.")
    return Fault(point, act, probability)


def _action(name: str) -> Callable[[], None]:
    verb, equals, seconds = name.partition("=")
    return partial(time.sleep, float(seconds)) if equals and verb == "sleep" else ACTIONS[name]


def planned(faults: list[Fault]) -> Callable[[str], None]:
    """The function that stands at every point."""
    if not faults:
        return no_fault

    def run(point: str) -> None:
        for fault in faults:
            if fault.point == point and random.random() < fault.probability:
                fault.act()

    return run


def no_fault(_point: str) -> None:
    pass


fault_point = planned(parse(settings.GALLEY_FAULT))
