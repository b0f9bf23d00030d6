"""Eight texts at once on every peer that is there."""

from contextlib import ExitStack
from functools import partial

from bench.bursts import ROUNDS, Burst, Side, mean_first, median_of, rate, ratio_of
from bench.engine.models import Bench
from bench.engine.ours import NUM_CELLS, Ours
from bench.engine.rows import Peers
from bench.form import Row
from bench.models import hf_folder
from bench.peers.llama_class import LlamaClass
from bench.peers.llama_server import LlamaServer
from bench.peers.python_servers import ExamplesServer, PackageServer
from bench.peers.torch_peers import TorchContinuous, TorchGenerate

NUM_TOKENS = 64
NUM_TEXTS = 8


def measure(bench: Bench) -> list[Row]:
    model = bench.small
    with ExitStack() as stack:
        ours = stack.enter_context(Ours(model.path, bench.scratch))
        peers = Peers(
            stack,
            partial(LlamaServer, model.path, num_slots=NUM_TEXTS, num_context=NUM_CELLS),
            partial(ExamplesServer, model.path, num_sequences=2 * NUM_TEXTS, num_context=NUM_CELLS),
            partial(PackageServer, model.path),
            partial(LlamaClass, model.path),
            partial(TorchGenerate, hf_folder(model.path)),
            partial(TorchContinuous, hf_folder(model.path)),
        )
        sides: dict[str, Side] = {"engine": ours} | peers.open
        bursts: dict[str, list[Burst]] = {name: [] for name in sides}
        for side in sides.values():
            side.write(model.prompts.briefs("warm", NUM_TEXTS), 8)
        for round_ in range(ROUNDS):
            for name, side in sides.items():
                briefs = model.prompts.briefs(f"{round_}", NUM_TEXTS)
                bursts[name].append(side.write(briefs, NUM_TOKENS))
    rows = [_row(name, found, bursts["engine"]) for name, found in bursts.items()]
    return rows + peers.absent(f"{NUM_TEXTS} at once")


def _row(name: str, found: list[Burst], ours: list[Burst]) -> Row:
    ratio = ratio_of(rate, ours, found)
    first = f"first token {median_of(mean_first, found):.3f} s"
    return Row(
        claim=f"{name}, {NUM_TEXTS} at once",
        figure=median_of(rate, found),
        unit="tok/s",
        peer=first if name == "engine" else f"engine {ratio:.2f} x, {first}",
    )
