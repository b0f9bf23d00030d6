"""Texts at once: against llama-batched-bench, and against one after another with `Llama.generate`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.bursts import ROUNDS, Burst, median_of, rate, ratio_of, steady_rate
from bench.engine.models import Bench, Model
from bench.engine.ours import Ours
from bench.engine.rows import at_least, not_compared
from bench.form import Row
from bench.peers import PeerMissing
from bench.peers.llama_class import LlamaClass
from bench.peers.llama_server import BatchedBench, Speeds

_CEILING_BARS = {8: 0.95, 16: 0.95, 32: 0.90}
_IN_TURN_BARS = {("0.5B", 16): 3.5}
_NUM_IN_TURN = 4


@dataclass
class _Found:
    """What the rounds brought, by number of texts at once where there are several."""

    ours: dict[int, list[Burst]]
    in_turn: list[Burst] = field(default_factory=list)
    ceiling: list[dict[int, Speeds]] = field(default_factory=list)


def measure(bench: Bench) -> list[Row]:
    rows: list[Row] = []
    for model in (bench.small, bench.large, bench.shipped):
        rows += _of_model(bench, model)
    return rows


def _of_model(bench: Bench, model: Model) -> list[Row]:
    ceiling, reason = _ceiling(model)
    found = _Found({size: [] for size in model.sizes})
    with (
        Ours(model.path, bench.scratch / model.name, num_sequences=max(model.sizes)) as ours,
        LlamaClass(model.path) as in_turn,
    ):
        ours.write(model.prompts.briefs("warm", max(model.sizes)), 16)
        in_turn.write(model.prompts.briefs("warm", 1), 16)
        for round_ in range(ROUNDS):
            for size, bursts in found.ours.items():
                bursts.append(ours.write(model.prompts.briefs(f"{round_}.{size}", size), model.num_tokens))
            in_turn_briefs = model.prompts.briefs(f"turn {round_}", _NUM_IN_TURN)
            found.in_turn.append(in_turn.write(in_turn_briefs, model.num_tokens))
            if ceiling:
                num_prompt = len(in_turn_briefs[0].ids)
                found.ceiling.append(
                    ceiling.speeds(num_prompt=num_prompt, num_tokens=model.num_tokens, sizes=model.sizes)
                )
    return _rates(model, found) + _shares(model, found, reason)


def _ceiling(model: Model) -> tuple[BatchedBench | None, PeerMissing | None]:
    try:
        return BatchedBench(model.path), None
    except PeerMissing as error:
        return None, error


def _rates(model: Model, found: _Found) -> list[Row]:
    base = median_of(rate, found.in_turn)
    rows = [Row(claim=f"{model.name}: Llama.generate, one after another", figure=base, unit="tok/s")]
    for size, bursts in found.ours.items():
        ratio = ratio_of(rate, bursts, found.in_turn)
        told = f"{ratio:.2f} x Llama.generate, {_mean_length(bursts):.0f} tokens each"
        rows.append(
            Row(
                claim=f"{model.name}: {size} at once, prompts included",
                figure=median_of(rate, bursts),
                unit="tok/s",
                peer=told,
            )
        )
        if bar := _IN_TURN_BARS.get((model.name, size)):
            rows.append(at_least(f"{model.name}: {size} at once against Llama.generate", ratio, bar))
    return rows


def _shares(model: Model, found: _Found, reason: PeerMissing | None) -> list[Row]:
    rows: list[Row] = []
    for size, bursts in found.ours.items():
        claim = f"{model.name}: {size} at once against batched-bench"
        if reason:
            bar = _CEILING_BARS.get(size)
            rows += [not_compared(claim, f">= {bar}", reason)] if bar else []
            continue
        theirs = [speeds[size] for speeds in found.ceiling]
        rows += _against_ceiling(claim, size, bursts, theirs)
    return rows


def _against_ceiling(claim: str, size: int, bursts: Sequence[Burst], theirs: Sequence[Speeds]) -> list[Row]:
    pairs = list(zip(bursts, theirs, strict=True))
    share = median(steady_rate(burst) / speeds.steady for burst, speeds in pairs)
    whole = median(rate(burst) / speeds.whole for burst, speeds in pairs)
    told = f"{median_of(steady_rate, bursts):.0f} of {median(speeds.steady for speeds in theirs):.0f} tok/s"
    rows = [Row(claim=f"{claim}, prompts included", figure=whole, unit="x")]
    if bar := _CEILING_BARS.get(size):
        return [at_least(claim, share, bar, peer=told), *rows]
    return [Row(claim=claim, figure=share, unit="x", peer=told), *rows]


def _mean_length(bursts: Sequence[Burst]) -> float:
    streams = [stream for burst in bursts for stream in burst]
    return sum(stream.num_tokens for stream in streams) / len(streams)
