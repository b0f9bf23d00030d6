"""Eight texts at once with one preset: warm, never seen before, and after a restart."""

from contextlib import ExitStack
from functools import partial
from statistics import median

from bench.bursts import (
    ROUNDS,
    Burst,
    Side,
    mean_first,
    median_of,
    rate,
    ratio_of,
    worst_first,
)
from bench.engine.models import Bench, Model
from bench.engine.ours import NUM_CELLS, Ours
from bench.engine.rows import Peers, at_least, at_most
from bench.form import Row
from bench.peers.llama_server import LlamaServer

NUM_TOKENS = 64
NUM_TEXTS = 8
_SHORT, _LONG = 64, 512  # tokens of the presets
_PEER = LlamaServer.name
_CLAIMS = (
    ("8 at once, warm: tokens/s against llama-server", ">= 1.2"),
    ("cold burst of 8: tokens/s against llama-server", ">= 4"),
    ("cold burst of 8: mean first token against llama-server", "<= 0.125"),
)

Bursts = dict[str, list[Burst]]
"""By state of the preset: warm (short), cold and kept (long), restarted (kept on disk)."""


def measure(bench: Bench) -> list[Row]:
    model = bench.small
    ours: Bursts = {"warm": [], "cold": [], "kept": [], "restarted": []}
    theirs: Bursts = {"warm": [], "cold": [], "kept": []}
    with ExitStack() as stack:
        opener = partial(LlamaServer, model.path, num_slots=NUM_TEXTS, num_context=NUM_CELLS)
        peers = Peers(stack, opener)
        for round_ in range(ROUNDS):
            with Ours(model.path, bench.scratch) as side:
                _round(side, model, round_, ours)
            with Ours(model.path, bench.scratch) as side:
                _again(side, model, round_, ours)
            for peer in peers.open.values():
                _round(peer, model, round_, theirs)
    compared = peers.rows(_CLAIMS, _PEER) if _PEER in peers.missing else _compared(ours, theirs)
    return _states(ours, "engine") + (_states(theirs, _PEER) if peers.open else []) + compared + _kept(ours)


def _round(side: Side, model: Model, round_: int, found: Bursts) -> None:
    prompts = model.prompts
    short, long = prompts.preset(f"s{round_}", _SHORT), prompts.preset(f"l{round_}", _LONG)
    side.write(prompts.briefs(f"before {round_}", NUM_TEXTS, style=short), NUM_TOKENS)
    for name, style in (("warm", short), ("cold", long), ("kept", long)):
        briefs = prompts.briefs(f"{name} {round_}", NUM_TEXTS, style=style)
        found[name].append(side.write(briefs, NUM_TOKENS))


def _again(side: Side, model: Model, round_: int, found: Bursts) -> None:
    """In a new process whose disk has the preset; only the code is warm."""
    prompts = model.prompts
    side.write(prompts.briefs(f"start {round_}", NUM_TEXTS), NUM_TOKENS)
    briefs = prompts.briefs(f"again {round_}", NUM_TEXTS, style=prompts.preset(f"l{round_}", _LONG))
    found["restarted"].append(side.write(briefs, NUM_TOKENS))


def _states(found: Bursts, side: str) -> list[Row]:
    return [
        Row(
            claim=f"{side}, burst of {NUM_TEXTS}, preset {name}",
            figure=median_of(rate, bursts),
            unit="tok/s",
            peer=f"first token {median_of(mean_first, bursts):.3f} s, "
            f"worst {median_of(worst_first, bursts):.3f} s",
        )
        for name, bursts in found.items()
    ]


def _compared(ours: Bursts, theirs: Bursts) -> list[Row]:
    (warm, _), (cold, _), (first, _) = _CLAIMS
    cold_first = ratio_of(mean_first, ours["cold"], theirs["cold"])
    worst = ratio_of(worst_first, ours["cold"], theirs["cold"])
    return [
        at_least(warm, ratio_of(rate, ours["warm"], theirs["warm"]), 1.2),
        at_least(cold, ratio_of(rate, ours["cold"], theirs["cold"]), 4.0),
        at_most(first, cold_first, 0.125, peer=f"worst first token {worst:.3f} x"),
    ]


def _kept(ours: Bursts) -> list[Row]:
    again, kept = ours["restarted"], ours["kept"]
    ratios = [mean_first(a) / mean_first(b) for a, b in zip(again, kept, strict=True)]
    return [at_most("burst of 8 after a restart: first token against kept", median(ratios), 1.3)]
