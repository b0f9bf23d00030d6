"""Whether the engine's memory grows over two thousand texts and a hundred changes of adapter."""

from pathlib import Path

import numpy as np

from bench.bursts import ROUNDS
from bench.engine.models import NUM_ADAPTERS, Bench
from bench.engine.ours import Ours
from bench.engine.rows import at_most
from bench.form import Row
from inference import Engine, EngineDied

NUM_TOKENS = 8
NUM_IN_BURST = 20
NUM_BURSTS = 20 * ROUNDS  # each with another adapter than the one before
NUM_PRESETS = 25
_PRESET_TOKENS = 64
_MAX_GROWTH = 1.0  # percent


def measure(bench: Bench) -> list[Row]:
    prompts, sizes = bench.small.prompts, []
    styles = [prompts.preset(str(number), _PRESET_TOKENS) for number in range(NUM_PRESETS)]
    with Ours(bench.small.path, bench.scratch, adapters=bench.adapters) as ours:
        for burst in range(NUM_BURSTS):
            style, adapter = styles[burst % NUM_PRESETS], burst % NUM_ADAPTERS
            briefs = [
                prompts.brief(f"{burst}.{i}", style=style, adapter=adapter) for i in range(NUM_IN_BURST)
            ]
            ours.write(briefs, NUM_TOKENS)
            sizes.append(_resident(ours.engine))
    growth = _growth(sizes[len(sizes) // 2 :])
    told = f"{sizes[0] / 1e6:.0f} MB first, {sizes[-1] / 1e6:.0f} MB last"
    claim = f"memory over {NUM_BURSTS * NUM_IN_BURST} texts, {NUM_BURSTS} adapter changes: 2nd half"
    return [at_most(claim, growth, _MAX_GROWTH, unit="%", peer=told)]


def _growth(sizes: list[int]) -> float:
    """Percent of the mean by which a straight line through the sizes rises from end to end."""
    slope = np.polyfit(range(len(sizes)), sizes, 1)[0]
    return float(slope * (len(sizes) - 1) / np.mean(sizes) * 100)


def _resident(engine: Engine) -> int:
    """Bytes in RAM of the engine process, from Linux's /proc."""
    stats = engine.stats()
    if stats.deaths or stats.pid is None:
        raise EngineDied("the engine process was replaced: its memory says nothing")
    for line in Path(f"/proc/{stats.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise EngineDied("the engine process has no memory")
