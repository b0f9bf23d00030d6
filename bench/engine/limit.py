"""How much of what this machine can do at all (engine.md 5.3) the engine gets.

One text is bound by memory: every step reads all weights once, so the share is
bytes of weights x steps/s over the bandwidth of a streaming read. Sixteen are bound by arithmetic: the
limit is the rate of a prompt, which skips the head for all tokens but the last, times the body's share
of the weights.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import median
from typing import Any

import numpy as np

from bench.bursts import NUM_THREADS, ROUNDS, steady_rate
from bench.engine.models import Bench, Model
from bench.engine.ours import NUM_SEQUENCES, Ours
from bench.engine.rows import at_least
from bench.form import Row
from bench.peers.llama_class import LlamaClass

NUM_TOKENS = 128
_NUM_BYTES = 1 << 30  # far more than any cache holds
_NUM_TRIES = 3
_NUM_PROMPT = 512
_HEAD = "token_embd.weight"  # tied: the same matrix is the output


@dataclass(frozen=True)
class Weights:
    """Of one GGUF with a tied head."""

    num_bytes: int
    body_share: float

    @classmethod
    def read(cls, model: Model) -> "Weights":
        from gguf import GGUFReader

        tensors = GGUFReader(model.path).tensors
        sizes = {tensor.name: int(tensor.n_elements) for tensor in tensors}
        num_bytes = sum(int(tensor.n_bytes) for tensor in tensors)
        return cls(num_bytes, 1 - sizes[_HEAD] / sum(sizes.values()))


def measure(bench: Bench) -> list[Row]:
    content = np.ones(_NUM_BYTES // 4, np.int32)
    one = median(bandwidth(content, num_threads=1) for _ in range(ROUNDS))
    rows = [Row(claim="streaming read, 1 thread", figure=one / 1e9, unit="GB/s")]
    for model in (bench.small, bench.large):
        rows += _of_model(bench, model, content)
    return rows


def _of_model(bench: Bench, model: Model, content: Any) -> list[Row]:
    weights = Weights.read(model)
    bandwidths, prefills, ones, many = [], [], [], []
    prompt = list(islice(cycle(model.prompts.brief("prompt").ids), _NUM_PROMPT))
    with Ours(model.path, bench.scratch / model.name) as ours, LlamaClass(model.path) as plain:
        ours.write(model.prompts.briefs("warm", NUM_SEQUENCES), 16)
        plain.prefill_rate(prompt)
        for round_ in range(ROUNDS):
            bandwidths.append(bandwidth(content, num_threads=NUM_THREADS))
            ones.append(steady_rate(ours.write(model.prompts.briefs(f"{round_}", 1), NUM_TOKENS)))
            prefills.append(plain.prefill_rate(prompt))
            burst = ours.write(model.prompts.briefs(f"{round_}.16", NUM_SEQUENCES), NUM_TOKENS)
            many.append(steady_rate(burst))
    memory = [steps * weights.num_bytes / limit for steps, limit in zip(ones, bandwidths, strict=True)]
    limits = [rate * weights.body_share for rate in prefills]
    arithmetic = [rate / limit for rate, limit in zip(many, limits, strict=True)]
    return [
        at_least(
            f"{model.name}, one text: share of the read bandwidth",
            median(memory),
            0.95,
            unit="",
            peer=f"{median(bandwidths) / 1e9:.1f} GB/s, {weights.num_bytes / 1e6:.0f} MB",
        ),
        at_least(
            f"{model.name}, 16 texts: share of the arithmetic limit",
            median(arithmetic),
            0.80,
            unit="",
            peer=f"{median(limits):.0f} tok/s, body {weights.body_share:.2f}",
        ),
    ]


def bandwidth(content: Any, *, num_threads: int) -> float:
    """Bytes per second of reading an array once; the best of a few tries."""
    parts = np.array_split(content, num_threads)
    with ThreadPoolExecutor(num_threads) as pool:
        return float(content.nbytes / min(_seconds(pool, parts)))


def _seconds(pool: ThreadPoolExecutor, parts: list[Any]) -> Iterator[float]:
    for _ in range(_NUM_TRIES):
        began = time.perf_counter()
        list(pool.map(np.max, parts))
        yield time.perf_counter() - began
