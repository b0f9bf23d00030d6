"""Turns of a loop in this process, and how alike two texts have to be.

Kernels round differently for different numbers of rows. So a token may differ where the model's
first two choices are as close as that noise, and nowhere else.
"""

from collections.abc import Iterator

from inference import Event, Request
from inference.engine.loop import Loop
from inference.engine.messages import Cancel, Submit

_NOISE = 0.02  # nats


def drive(loop: Loop, *messages: Submit | Cancel) -> Iterator[tuple[int, Event]]:
    """Turns until nothing is left to do."""
    inbox = list(messages)
    while inbox or not loop.is_idle:
        for ticket, item in loop.turn(inbox).items:
            assert isinstance(item, Event), item
            yield ticket, item
        inbox = []


def write(loop: Loop, requests: list[Request]) -> list[list[Event]]:
    written: list[list[Event]] = [[] for _ in requests]
    for ticket, event in drive(loop, *(Submit(i, each) for i, each in enumerate(requests))):
        written[ticket].append(event)
    return written


def ids_of(text: list[Event]) -> tuple[int, ...]:
    return tuple(number for event in text for number in event.token_ids)


def num_near_ties(text: list[Event], reference: list[Event]) -> int:
    """0 for the same tokens, 1 where they part at a near-tie; both need logprobs. Anything else fails."""
    ids, expected = ids_of(text), ids_of(reference)
    if ids == expected:
        return 0
    at = next((i for i, (a, b) in enumerate(zip(ids, expected, strict=False)) if a != b), None)
    assert at is not None, f"one text is {len(ids)} tokens long and the other {len(expected)}"
    token = [one for event in reference for one in event.logprobs][at]
    (_, first), (_, second), *_ = token.alternatives
    assert first - second < _NOISE, f"another token at {at}, where the first choice leads by {first - second}"
    return 1
