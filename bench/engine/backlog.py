"""People who come at random moments, on an idle engine and over a backlog of batch texts."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Self

from bench.bursts import ROUNDS, p95
from bench.engine.models import Bench, Model
from bench.engine.ours import NUM_SEQUENCES, Ours
from bench.engine.rows import at_least, at_most
from bench.form import Row
from bench.peers import PeerFailed

NUM_PEOPLE = 8  # in each round
MEAN_GAP_S = 2.0
NUM_TOKENS = 16  # of a person's text
NUM_BATCH_TOKENS = (32, 256)  # of a batch text, from and to: they do not all end at once
NUM_IN_BACKLOG = 2 * NUM_SEQUENCES
_ALONE_S = NUM_PEOPLE * MEAN_GAP_S
_SETTLE_S = 4.0


def measure(bench: Bench) -> list[Row]:
    model = bench.small
    idle: list[float] = []
    busy: list[float] = []
    shares: list[float] = []
    rates: list[float] = []
    with Ours(model.path, bench.scratch) as ours:
        ours.write(model.prompts.briefs("warm", NUM_SEQUENCES), NUM_TOKENS)
        for round_ in range(ROUNDS):
            idle += _first_tokens_of_people(ours, model, round_)
            with Backlog(ours, model) as backlog:
                time.sleep(_SETTLE_S)
                alone = backlog.rate_since(_sleep(_ALONE_S))
                began = time.perf_counter()
                busy += _first_tokens_of_people(ours, model, round_)
                rates.append(alone)
                shares.append(backlog.rate_since(began) / alone)
    ratio = p95(busy) / p95(idle)
    return [
        Row(
            claim=f"a person's first token, idle engine, one every {MEAN_GAP_S:.0f} s, p95",
            figure=p95(idle),
            unit="s",
        ),
        at_most(
            "a person's first token over a backlog, p95 against idle", ratio, 1.5, peer=f"{p95(busy):.3f} s"
        ),
        at_least(
            "what the backlog keeps of its rate",
            median(shares),
            0.8,
            unit="",
            peer=f"{median(rates):.0f} tok/s without people",
        ),
    ]


class Backlog:
    """Always `NUM_IN_BACKLOG` batch texts on their way, until the block ends."""

    def __init__(self, ours: Ours, model: Model) -> None:
        self._ours, self._model = ours, model
        self._is_over = threading.Event()
        self._arrivals: list[tuple[float, int]] = []
        self._pool = ThreadPoolExecutor(NUM_IN_BACKLOG)

    def __enter__(self) -> Self:
        self._writers = [self._pool.submit(self._write, i) for i in range(NUM_IN_BACKLOG)]
        return self

    def __exit__(self, *_: object) -> None:
        """Raises what a text raised."""
        self._is_over.set()
        self._pool.shutdown()
        for writer in self._writers:
            writer.result()

    def rate_since(self, began: float) -> float:
        """Tokens per second since a moment of `time.perf_counter`. Raises PeerFailed for none at all."""
        now = time.perf_counter()
        num_tokens = sum(count for moment, count in list(self._arrivals) if moment > began)
        if not num_tokens:
            raise PeerFailed(f"the backlog stood still for {now - began:.0f} s")
        return num_tokens / (now - began)

    def _write(self, number: int) -> None:
        num, lengths = 0, random.Random(number)
        while not self._is_over.is_set():
            brief = self._model.prompts.brief(f"batch {number}.{num}")
            request = self._ours.request(brief, lengths.randint(*NUM_BATCH_TOKENS), of="batch")
            num += 1
            for count in self._ours.stream(request):
                self._arrivals.append((time.perf_counter(), count))
                if self._is_over.is_set():
                    break  # closing the stream cancels the text


def _first_tokens_of_people(ours: Ours, model: Model, round_: int) -> list[float]:
    """Seconds from each person's request to the first token; the same people come in every state."""
    generator = random.Random(round_)
    gaps = [generator.expovariate(1 / MEAN_GAP_S) for _ in range(NUM_PEOPLE)]
    arrivals = [sum(gaps[: i + 1]) for i in range(NUM_PEOPLE)]
    briefs = model.prompts.briefs(f"person {round_}", NUM_PEOPLE)
    requests = [ours.request(brief, NUM_TOKENS) for brief in briefs]
    began = time.perf_counter()

    def come(i: int) -> float:
        time.sleep(max(0.0, began + arrivals[i] - time.perf_counter()))
        asked = time.perf_counter()
        moments = [time.perf_counter() for _ in ours.stream(requests[i])]
        return moments[0] - asked

    with ThreadPoolExecutor(NUM_PEOPLE) as people:
        return list(people.map(come, range(NUM_PEOPLE)))


def _sleep(seconds: float) -> float:
    """The moment at which it began."""
    began = time.perf_counter()
    time.sleep(seconds)
    return began
