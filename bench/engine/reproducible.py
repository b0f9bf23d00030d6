"""What a text costs that must not depend on the company it is written in, and whether it does not."""

from concurrent.futures import ThreadPoolExecutor

from bench.bursts import ROUNDS, Burst, median_of, rate, ratio_of
from bench.engine.models import Bench, Model
from bench.engine.ours import Ours
from bench.engine.rows import at_least
from bench.form import Row

NUM_TOKENS = 64
SIZES = (1, 8)


def measure(bench: Bench) -> list[Row]:
    model = bench.small
    found: dict[tuple[bool, int], list[Burst]] = {
        (mode, size): [] for mode in (False, True) for size in SIZES
    }
    same: list[bool] = []
    with Ours(model.path, bench.scratch) as ours:
        ours.write(model.prompts.briefs("warm", max(SIZES)), NUM_TOKENS)
        for round_ in range(ROUNDS):
            for (mode, size), bursts in found.items():
                briefs = model.prompts.briefs(f"{round_}", size)
                bursts.append(ours.write(briefs, NUM_TOKENS, is_reproducible=mode))
            same.append(_is_same_in_company(ours, model, round_))
    return [
        *_costs(found),
        at_least("reproducible texts equal alone and in company", _share(same), 1, unit=""),
    ]


def _costs(found: dict[tuple[bool, int], list[Burst]]) -> list[Row]:
    rows = []
    for size in SIZES:
        ordinary, alone = found[False, size], found[True, size]
        told = f"{ratio_of(rate, alone, ordinary):.2f} x of {median_of(rate, ordinary):.0f} tok/s"
        claim = f"{size} reproducible at once"
        rows.append(Row(claim=claim, figure=median_of(rate, alone), unit="tok/s", peer=told))
    return rows


def _is_same_in_company(ours: Ours, model: Model, round_: int) -> bool:
    brief = model.prompts.brief(f"kept {round_}")
    alone = ours.text(ours.request(brief, NUM_TOKENS, is_reproducible=True))
    with ThreadPoolExecutor(1) as other:
        company = other.submit(ours.write, model.prompts.briefs(f"company {round_}", 7), NUM_TOKENS)
        among = ours.text(ours.request(brief, NUM_TOKENS, is_reproducible=True))
        company.result()
    return alone == among


def _share(same: list[bool]) -> float:
    return sum(same) / len(same)
