"""What a burst of texts is made of, and what is read off it: the same for our engine and its peers."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, quantiles
from typing import Protocol, Self

from bench.peers.errors import PeerFailed
from inference.chat import END_OF_TURN, Message, prompt_ids

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
"""Fewer than five are for trying a bench out; their figures mean nothing."""

NUM_THREADS = 2
"""For every side: the claims are about two cores."""

TOP_K, TOP_P, TEMPERATURE, REPEAT_PENALTY = 40, 0.95, 0.8, 1.05

_FILLER = "write plainly and name the source "


@dataclass(frozen=True)
class Brief:
    """One text to write, as messages, as the ChatML text and as the token ids of the same prompt.

    `adapter` is a place in the list of adapters that a side was opened with.
    """

    messages: tuple[Message, ...]
    text: str
    ids: tuple[int, ...]
    adapter: int | None = None


@dataclass(frozen=True)
class Stream:
    """(seconds since the burst began, number of tokens) of every piece of one text, in order."""

    arrivals: tuple[tuple[float, int], ...]

    @property
    def first(self) -> float:
        return self.arrivals[0][0]

    @property
    def last(self) -> float:
        return self.arrivals[-1][0]

    @property
    def num_tokens(self) -> int:
        return sum(count for _, count in self.arrivals)

    def tokens_within(self, start: float, end: float) -> int:
        """Tokens that came after `start`, up to `end`."""
        return sum(count for moment, count in self.arrivals if start < moment <= end)


Burst = Sequence[Stream]


class Side(Protocol):
    """Whoever writes: opened by `with`, which raises PeerMissing where it cannot be started here."""

    name: str

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def write(self, briefs: Sequence[Brief], num_tokens: int) -> list[Stream]:
        """All briefs at once, `num_tokens` each; a text that ends earlier is as long as it is."""
        ...


class Prompts:
    """Makes briefs for a model: nothing but its vocabulary is loaded."""

    def __init__(self, model: Path) -> None:
        from llama_cpp import Llama

        self._vocab = Llama(str(model), vocab_only=True, verbose=False)

    def brief(self, name: str, *, style: str = "Style: news", adapter: int | None = None) -> Brief:
        """Briefs of different names differ from the beginning, as people's do: only the style is shared."""
        subject = f"Subject: number {name}, the library by the river\nLength: 200 words"
        messages: tuple[Message, ...] = (
            {"role": "system", "text": style},
            {"role": "user", "text": subject},
        )
        return Brief(messages, _chatml(messages), tuple(prompt_ids(messages, self._ids)), adapter)

    def briefs(self, name: str, count: int, *, style: str = "Style: news") -> list[Brief]:
        return [self.brief(f"{name}.{i}", style=style) for i in range(count)]

    def preset(self, name: str, num_tokens: int) -> str:
        """A system text of at least so many tokens that begins with its name."""
        text = f"Style {name}: "
        missing = num_tokens - len(self._ids(text, False))
        return text + _FILLER * (missing // len(self._ids(_FILLER, False)) + 1)

    def _ids(self, text: str, special: bool) -> list[int]:
        return self._vocab.tokenize(text.encode(), False, special)


def together(streams: Sequence[Callable[[], Iterator[int]]]) -> list[Stream]:
    """Read all streams at once, each on a thread of its own; they yield numbers of tokens.

    What a thread raises is raised here when all have ended.
    """
    began = time.perf_counter()
    arrivals: list[list[tuple[float, int]]] = [[] for _ in streams]
    errors: list[Exception] = []

    def read(i: int) -> None:
        try:
            for count in streams[i]():
                arrivals[i].append((time.perf_counter() - began, count))
        except Exception as error:  # noqa: BLE001 - it belongs to the caller's thread
            errors.append(error)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(len(streams))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    if not all(arrivals):
        raise PeerFailed("a text came back without a token: there is no time to its first one")
    return [Stream(tuple(found)) for found in arrivals]


def rate(burst: Burst) -> float:
    """Tokens per second from the first request to the last token, prompts included."""
    return sum(stream.num_tokens for stream in burst) / max(stream.last for stream in burst)


def steady_rate(burst: Burst) -> float:
    """Tokens per second while all texts are being written: after the last of the first tokens."""
    start, end = max(stream.first for stream in burst), min(stream.last for stream in burst)
    if end <= start:
        return rate(burst)
    return sum(stream.tokens_within(start, end) for stream in burst) / (end - start)


def mean_first(burst: Burst) -> float:
    return fmean(stream.first for stream in burst)


def worst_first(burst: Burst) -> float:
    return max(stream.first for stream in burst)


def median_of(figure: Callable[[Burst], float], bursts: Sequence[Burst]) -> float:
    return median(map(figure, bursts))


def ratio_of(figure: Callable[[Burst], float], ours: Sequence[Burst], theirs: Sequence[Burst]) -> float:
    """The median of what the rounds say: both sides of each quotient ran within the same minute."""
    return median(figure(a) / figure(b) for a, b in zip(ours, theirs, strict=True))


def p95(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=20)[-1]


def _chatml(messages: Sequence[Message]) -> str:
    turns = "".join(
        f"<|im_start|>{message['role']}\n{message['text']}{END_OF_TURN}\n" for message in messages
    )
    return f"{turns}<|im_start|>assistant\n"
