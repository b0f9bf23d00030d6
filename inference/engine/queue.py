"""Who is next among those that wait: two classes by weight, and users by turns within a class."""

from collections import deque
from collections.abc import Iterator
from itertools import chain

from inference.engine.sequence import Sequence
from inference.types import RequestClass

WEIGHTS: dict[RequestClass, float] = {"interactive": 8.0, "batch": 1.0}
"""Tokens of one class for each token of the other while both wait."""

BATCH_SHARE = WEIGHTS["batch"] / sum(WEIGHTS.values())

_Flow = tuple[RequestClass, str]


class FairQueue:
    """Start-time fair queueing (Goyal, Vin and Cheng 1997), once over classes and once over users.

    What a class or a user was given is counted in tokens. The one that was given least comes next,
    so neither many requests nor long ones push others aside. Who comes back after a pause starts
    level with the others and gains nothing for having been away.
    """

    def __init__(self) -> None:
        self._flows: dict[_Flow, deque[Sequence]] = {}
        self._given: dict[_Flow, float] = {}
        self._class_given: dict[RequestClass, float] = dict.fromkeys(WEIGHTS, 0.0)

    def __iter__(self) -> Iterator[Sequence]:
        """All that wait, in the order in which they would be admitted if all fitted."""
        flows = {flow: deque(waiting) for flow, waiting in self._flows.items()}
        given, class_given = dict(self._given), dict(self._class_given)
        while flows:
            flow = self._next(flows, given, class_given)
            sequence = flows[flow].popleft()
            if not flows[flow]:
                del flows[flow]
            self._charge(sequence, given, class_given)
            yield sequence

    def __len__(self) -> int:
        return sum(map(len, self._flows.values()))

    def in_any_order(self) -> Iterator[Sequence]:
        return chain.from_iterable(self._flows.values())

    def num_of(self, request_class: RequestClass) -> int:
        return sum(len(waiting) for flow, waiting in self._flows.items() if flow[0] == request_class)

    def add(self, sequence: Sequence) -> None:
        self._waiting_of(sequence).append(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Take back what was admitted: first among those of its user, who was not given the rest."""
        self._waiting_of(sequence).appendleft(sequence)
        self._charge(sequence, self._given, self._class_given, sign=-1)

    def admit(self, sequence: Sequence) -> None:
        self._charge(sequence, self._given, self._class_given)
        self.remove(sequence)

    def remove(self, sequence: Sequence) -> None:
        flow = _flow(sequence)
        self._flows[flow].remove(sequence)
        if not self._flows[flow]:
            del self._flows[flow], self._given[flow]

    def _waiting_of(self, sequence: Sequence) -> deque[Sequence]:
        flow = _flow(sequence)
        if flow not in self._flows:
            self._level(flow)
            self._flows[flow] = deque()
        return self._flows[flow]

    def _level(self, flow: _Flow) -> None:
        """Bring a flow that waits again up to the one that was given least."""
        request_class, _ = flow
        waiting = {other for other, _ in self._flows}
        if waiting and request_class not in waiting:
            least = min(self._class_given[other] for other in waiting)
            self._class_given[request_class] = max(self._class_given[request_class], least)
        others = [given for other, given in self._given.items() if other[0] == request_class]
        self._given[flow] = min(others, default=0.0)

    @staticmethod
    def _next(
        flows: dict[_Flow, deque[Sequence]],
        given: dict[_Flow, float],
        class_given: dict[RequestClass, float],
    ) -> _Flow:
        return min(flows, key=lambda flow: (class_given[flow[0]], -WEIGHTS[flow[0]], given[flow]))

    @staticmethod
    def _charge(
        sequence: Sequence,
        given: dict[_Flow, float],
        class_given: dict[RequestClass, float],
        *,
        sign: int = 1,
    ) -> None:
        flow, num_tokens = _flow(sequence), sign * (sequence.max_ids - sequence.num_computed)
        given[flow] += num_tokens
        class_given[flow[0]] += num_tokens / WEIGHTS[flow[0]]


def _flow(sequence: Sequence) -> _Flow:
    return sequence.request.request_class, sequence.request.user
