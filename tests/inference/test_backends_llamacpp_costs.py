"""Which attention is the quicker one is measured on this machine, once, in the cells of real texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_cpp import llama_cpp as llama

from inference.backends import costs
from inference.backends.llamacpp import LlamaCppRunner
from inference.backends.llamacpp_costs import quickest_attention
from inference.backends.llamacpp_lane import Batch, LlamaLane
from inference.engine.costs import CostTable
from inference.models import resolve
from tests.support.random_gguf import write_model

PLAIN, FLASH = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED, llama.LLAMA_FLASH_ATTN_TYPE_ENABLED


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppRunner]:
    folder = tmp_path_factory.mktemp("runner")
    model = resolve(str(write_model(folder / "random.gguf")), folder)
    yield LlamaCppRunner(model, cache=folder, n_ctx=512, max_sequences=4, threads=1)


class Opener:
    """Makes lanes of the runner's model and counts them."""

    def __init__(self, runner: LlamaCppRunner) -> None:
        self._runner = runner
        self.kinds: list[int] = []

    def __call__(self, kind: int) -> LlamaLane:
        self.kinds.append(kind)
        return LlamaLane(self._runner._model, self._runner._context_params(attention=kind))


def quickest(open_lane: Opener, cache: Path) -> tuple[int, CostTable]:
    return quickest_attention(
        open_lane, (PLAIN, FLASH), Batch(), cache=cache, model="m", max_sequences=4, threads=1
    )


def test_each_kind_is_measured_once(runner: LlamaCppRunner, tmp_path: Path) -> None:
    first, second = Opener(runner), Opener(runner)
    kind, table = quickest(first, tmp_path)
    again, kept = quickest(second, tmp_path)
    assert first.kinds == [PLAIN, FLASH]
    assert second.kinds == []
    assert (again, kept.of(2)) == (kind, table.of(2))


@pytest.mark.parametrize(("plain", "flash", "best"), [(2.0, 3.0, PLAIN), (3.0, 2.0, FLASH)])
def test_half_load_decides(
    runner: LlamaCppRunner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plain: float,
    flash: float,
    best: int,
) -> None:
    """Two of four texts: what a single one or a full house costs counts for nothing."""
    tables = iter([CostTable({1: flash, 2: plain, 4: 9.0}), CostTable({1: plain, 2: flash, 4: 10.0})])

    def measured(*_: Any, **__: Any) -> CostTable:
        return next(tables)

    monkeypatch.setattr(costs, "measured_costs", measured)
    assert quickest(Opener(runner), tmp_path)[0] == best


def test_a_text_of_the_lanes_kind_goes_on_as_it_began(runner: LlamaCppRunner) -> None:
    """Whatever was chosen, every lane of the engine has it: prefixes and parked texts move between them."""
    lanes = [runner._lane(None, None), runner._blank_lane(runner._context_params())]
    assert {lane.params.flash_attn_type for lane in lanes} == {runner._attention}
    lanes[1].close()


def test_a_model_in_32_bit_floats_stays_exact(tmp_path: Path) -> None:
    path = write_model(tmp_path / "random.gguf")
    runner = LlamaCppRunner(
        resolve(str(path), tmp_path), cache=tmp_path, n_ctx=512, max_sequences=2, threads=1
    )
    assert runner._attention_kinds() == (PLAIN, FLASH)
    runner.info = type(runner.info)(**{**vars(runner.info), "quantization": "all F32"})
    assert runner._attention_kinds() == (PLAIN,)
