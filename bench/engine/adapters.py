"""Four texts for each of two and four adapters at once, against llama-server with the same LoRAs.

An adapter is late or early by the median of its texts. Prompts are read one after another, so single
texts lie further apart: reading all of them in step would make the first as late as the last.
"""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from bench.bursts import ROUNDS, Brief, Burst, Side, median_of, rate, ratio_of
from bench.engine.models import Bench, Model
from bench.engine.ours import NUM_CELLS, NUM_SEQUENCES, Ours
from bench.engine.rows import Peers, at_least, at_most
from bench.form import Row
from bench.peers.llama_server import LlamaServer
from inference.adapters import GGUF_NAME

NUM_TOKENS = 64
NUM_EACH = 4
_SPREAD_BARS = {2: 1.3, 4: 1.5}
_PEER = LlamaServer.name
_RATE_CLAIM, _RATE_BAR = "2 adapters, 4 texts each: tokens/s against llama-server", 2.0


def measure(bench: Bench) -> list[Row]:
    model, refs = bench.small, bench.adapters[: max(_SPREAD_BARS)]
    ours: dict[int, list[Burst]] = {num: [] for num in _SPREAD_BARS}
    theirs: dict[int, list[Burst]] = {num: [] for num in _SPREAD_BARS}
    files = [Path(ref.path) / GGUF_NAME for ref in refs]
    with ExitStack() as stack:
        engine = stack.enter_context(Ours(model.path, bench.scratch, adapters=refs))
        opener = partial(
            LlamaServer, model.path, num_slots=NUM_SEQUENCES, num_context=NUM_CELLS, adapters=files
        )
        peers = Peers(stack, opener)
        for round_ in range(ROUNDS):
            for num in _SPREAD_BARS:
                _burst(engine, model, round_, num, ours)
                for peer in peers.open.values():
                    _burst(peer, model, round_, num, theirs)
    rows = _rows("engine", ours)
    if _PEER in peers.missing:
        return rows + peers.rows([(_RATE_CLAIM, f">= {_RATE_BAR}")], _PEER)
    told = at_least(_RATE_CLAIM, ratio_of(rate, ours[2], theirs[2]), _RATE_BAR)
    return [*rows, told, *_rows(_PEER, theirs, has_bars=False)]


def _burst(side: Side, model: Model, round_: int, num: int, found: dict[int, list[Burst]]) -> None:
    """The adapters in turn, as people of several styles would come; a short burst warms them up."""
    side.write(_briefs(model, f"warm {round_}", num, 1), 8)
    found[num].append(side.write(_briefs(model, str(round_), num, NUM_EACH), NUM_TOKENS))


def _briefs(model: Model, name: str, num: int, each: int) -> list[Brief]:
    return [model.prompts.brief(f"{name}.{num}.{i}", adapter=i % num) for i in range(num * each)]


def _rows(side: str, found: dict[int, list[Burst]], *, has_bars: bool = True) -> list[Row]:
    rows: list[Row] = []
    for num, bursts in found.items():
        claim = f"{side}, {num} adapters, {NUM_EACH} texts each"
        spread = median(max(_firsts(burst)) / min(_firsts(burst)) for burst in bursts)
        by_adapter = median(_spread_of_adapters(burst, num) for burst in bursts)
        told = f"{spread:.2f} x between single texts"
        rows.append(Row(claim=claim, figure=median_of(rate, bursts), unit="tok/s"))
        claim = f"{side}, {num} adapters: latest adapter's first token against earliest"
        if has_bars:
            rows.append(at_most(claim, by_adapter, _SPREAD_BARS[num], peer=told))
        else:
            rows.append(Row(claim=claim, figure=by_adapter, unit="x", peer=told))
    return rows


def _firsts(burst: Burst) -> list[float]:
    return [stream.first for stream in burst]


def _spread_of_adapters(burst: Burst, num: int) -> float:
    medians = [median(_firsts(burst[i::num])) for i in range(num)]
    return max(medians) / min(medians)
