"""Which of several equal servers takes a request.

A request without adapter goes where the fewest streams are open. One with an adapter goes to the server
that scores highest for it (rendezvous hashing): an adapter stays on few servers, and when a server is
lost, only its own adapters move. A server that failed is left alone for a pause that doubles; the
first request after the pause tries it again.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock

_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)


@dataclass(eq=False)
class Replica:
    """One server. `num_failures` counts those in a row; nobody asks it before `resting_until`."""

    address: str
    num_open: int = 0
    num_failures: int = 0
    resting_until: float = 0.0

    def score(self, adapter: str) -> bytes:
        return sha256(f"{adapter} {self.address}".encode()).digest()


class Replicas:
    """Safe to call from any thread; `clock` gives seconds."""

    def __init__(self, addresses: Sequence[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self.all = tuple(Replica(address) for address in addresses)
        self.num_outages = 0

    @property
    def num_open(self) -> int:
        return sum(replica.num_open for replica in self.all)

    def take(self, adapter: str, tried: Collection[Replica]) -> Replica | None:
        """The next one to ask, which counts as open until `give_back`; None when nobody is left."""
        with self._lock:
            awake = [replica for replica in self.all if self._pause_of(replica) == 0 and replica not in tried]
            if not awake:
                return None
            replica = _choose(awake, adapter)
            replica.num_open += 1
            if replica.num_failures:
                # It counts as failed once more until `recovered`: meanwhile others go elsewhere.
                self._put_to_rest(replica)
            return replica

    def give_back(self, replica: Replica) -> None:
        with self._lock:
            replica.num_open -= 1

    def failed(self, replica: Replica) -> float:
        """Seconds until it is tried again. The streams that one outage breaks count as one failure."""
        with self._lock:
            if not replica.num_failures:
                self.num_outages += 1
            if self._pause_of(replica) == 0:
                self._put_to_rest(replica)
            return self._pause_of(replica)

    def recovered(self, replica: Replica) -> None:
        with self._lock:
            replica.num_failures, replica.resting_until = 0, 0.0

    def pause(self) -> float:
        """Seconds until the first of those that rest is tried again; 0 when none rests."""
        with self._lock:
            pauses = [self._pause_of(replica) for replica in self.all]
            return min((pause for pause in pauses if pause), default=0.0)

    def _pause_of(self, replica: Replica) -> float:
        return max(0.0, replica.resting_until - self._clock())

    def _put_to_rest(self, replica: Replica) -> None:
        pause = _PAUSES_S[min(replica.num_failures, len(_PAUSES_S) - 1)]
        replica.num_failures += 1
        replica.resting_until = self._clock() + pause


def _choose(replicas: Sequence[Replica], adapter: str) -> Replica:
    if adapter:
        return max(replicas, key=lambda replica: replica.score(adapter))
    return min(replicas, key=lambda replica: replica.num_open)
