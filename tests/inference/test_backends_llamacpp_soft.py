"""Adapters of every kind compute in llama.cpp what peft computes in torch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from llama_cpp import llama_cpp as llama

from inference import AdapterRef, AdapterUnavailable, adapters, gguf
from inference.backends.llamacpp import LlamaCppRunner, _context_params
from inference.backends.llamacpp_lane import BATCH_TOKENS, Batch, LlamaLane
from inference.backends.llamacpp_soft import PrefixTuning, read_soft_prompt, with_cells
from inference.models import resolve
from tests.support.families import VOCAB, save_lora, save_soft_prompt, write_family
from tests.support.logits import Logits, relative_error, torch_logits

IDS = (5, 80, 200, 17, 301, 44, 44, 499, 3, 120, 260, 7, 99, 410, 18, 333)
KINDS = ("LORA", "PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "qwen3 with wide heads": ("qwen3", {"head_dim": 64}),
}
TOLERANCE = 3e-3  # of the largest logit of a row: llama.cpp's cells are 16-bit floats

# peft 0.21 asks transformers 5.23 for a property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def write_base(folder: Path, family: str, **changes: Any) -> Path:
    base = write_family(folder / "base", family, **changes)
    gguf.export_model(base, folder / "model.gguf", quantization="F32")
    return base


def open_runner(folder: Path, n_ctx: int = 256) -> LlamaCppRunner:
    model = resolve(str(folder / "model.gguf"), folder)
    return LlamaCppRunner(model, cache=folder / "cache", n_ctx=n_ctx, max_sequences=2, threads=1)


@pytest.fixture(scope="module")
def llama_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    write_base(folder, "llama", max_position_embeddings=1024)
    return folder


@pytest.fixture(scope="module")
def llama_runner(llama_home: Path) -> Iterator[LlamaCppRunner]:
    yield open_runner(llama_home)


def save_kind(kind: str, base: Path, folder: Path, **options: Any) -> Any:
    """Save a random adapter of the kind, with its GGUF where it has one; return the adapted model."""
    if kind != "LORA":
        return save_soft_prompt(base, folder, kind, **options)
    adapted = save_lora(base, folder, r=4, lora_alpha=8)
    gguf.export_lora(folder, base, folder / adapters.GGUF_NAME)
    return adapted


def sealed(folder: Path, base_sha256: str) -> AdapterRef:
    return AdapterRef(sha256=adapters.seal(folder, base_sha256=base_sha256).sha256, path=str(folder))


def runner_logits(runner: LlamaCppRunner, adapter: AdapterRef, slot: int = 0) -> Logits:
    """Logits after each of IDS, from the lane that the engine would use."""
    return lane_logits(runner._lane(adapter.sha256, adapter), slot)


def lane_logits(lane: LlamaLane, slot: int) -> Logits:
    batch = Batch()
    lane.begin(slot)
    for number, token in enumerate(IDS):
        batch.add(token, position=lane.num_virtual + number, slot=slot, has_logits=True)
    batch.run(lane, threads=1)
    shape = (len(IDS), VOCAB)
    return np.ctypeslib.as_array(llama.llama_get_logits(lane.context), shape).copy()


def assert_same(ours: Logits, reference: Logits, tolerance: float = TOLERANCE) -> None:
    assert relative_error(ours, reference) < tolerance
    second, first = np.sort(reference, axis=1)[:, -2:].T
    is_clear = first - second > 2 * TOLERANCE * np.abs(reference).max(1)
    assert is_clear.sum() > len(IDS) / 2, "a comparison of near-ties would prove little"
    assert (ours.argmax(1) == reference.argmax(1))[is_clear].all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_computes_what_peft_computes(family: str, kind: str, tmp_path: Path) -> None:
    name, changes = FAMILIES[family]
    base = write_base(tmp_path, name, **changes)
    runner = open_runner(tmp_path)
    reference = torch_logits(save_kind(kind, base, tmp_path / "adapter"), IDS)
    adapter = sealed(tmp_path / "adapter", runner.info.sha256)
    assert_same(runner_logits(runner, adapter), reference)
    assert_same(runner_logits(runner, adapter, slot=1), reference)


@pytest.mark.parametrize(("kind", "tolerance"), [("PROMPT_TUNING", TOLERANCE), ("PREFIX_TUNING", 1e-2)])
def test_a_soft_prompt_may_be_longer_than_a_batch(
    kind: str, tolerance: float, llama_home: Path, llama_runner: LlamaCppRunner, tmp_path: Path
) -> None:
    """With flash attention the sums are 16-bit floats as well, so more tokens mean a larger error."""
    adapted = save_kind(kind, llama_home / "base", tmp_path / kind, num_tokens=BATCH_TOKENS + 8)
    adapter = sealed(tmp_path / kind, llama_runner.info.sha256)
    assert_same(runner_logits(llama_runner, adapter), torch_logits(adapted, IDS), tolerance)


def test_in_cells_of_32_bits_no_error_is_left(
    llama_home: Path, llama_runner: LlamaCppRunner, tmp_path: Path
) -> None:
    adapted = save_kind("PROMPT_TUNING", llama_home / "base", tmp_path)
    params = _context_params(256, 3)
    params.type_k = params.type_v = GGMLQuantizationType.F32
    lane = LlamaLane(llama_runner._model, params)
    soft = read_soft_prompt(tmp_path, llama_runner._model)
    soft.fill(lane, lane.soft_slot, threads=1)
    lane.begin_with(soft.num_tokens)
    assert_same(lane_logits(lane, 1), torch_logits(adapted, IDS), tolerance=1e-4)
    lane.close()


def test_a_projected_prefix_is_saved_as_what_it_projects_to(
    llama_home: Path, llama_runner: LlamaCppRunner, tmp_path: Path
) -> None:
    adapted = save_kind("PREFIX_TUNING", llama_home / "base", tmp_path / "projected", prefix_projection=True)
    adapter = sealed(tmp_path / "projected", llama_runner.info.sha256)
    assert_same(runner_logits(llama_runner, adapter), torch_logits(adapted, IDS))


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "other", "complaint"),
    [
        ("PREFIX_TUNING", {"num_hidden_layers": 2}, "layers: 2, not 4"),
        ("PREFIX_TUNING", {"num_key_value_heads": 4}, "kv heads: 4, not 2"),
        ("PREFIX_TUNING", {"head_dim": 16}, "head size: 16, not 32"),
        ("PROMPT_TUNING", {"hidden_size": 64}, "width: 64, not 128"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_a_soft_prompt_of_another_model_is_refused(
    kind: str, other: dict[str, int], complaint: str, llama_runner: LlamaCppRunner, tmp_path: Path
) -> None:
    save_kind(kind, write_family(tmp_path / "other", "llama", **other), tmp_path / "adapter")
    adapter = sealed(tmp_path / "adapter", llama_runner.info.sha256)
    with pytest.raises(AdapterUnavailable, match=complaint):
        llama_runner._lane("other", adapter)
    assert "other" not in llama_runner._lanes


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_virtual_tokens": 7}, r"\(6, 128\) numbers where its config tells \(7, 128\)"),
        ({"num_virtual_tokens": None}, "num_virtual_tokens of a soft prompt must be 1 or more, not None"),
        ({"token_dim": "wide"}, "token_dim in the config of a soft prompt must be 1 or more, not 'wide'"),
        ({"peft_type": "LOHA"}, "adapters of the kind LOHA cannot be run; train one of these: LORA"),
    ],
    ids=str,
)
def test_a_config_that_does_not_tell_the_truth_is_refused(
    change: dict[str, Any], complaint: str, llama_home: Path, llama_runner: LlamaCppRunner, tmp_path: Path
) -> None:
    save_kind("PROMPT_TUNING", llama_home / "base", tmp_path)
    path = tmp_path / adapters.CONFIG_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(AdapterUnavailable, match=complaint):
        read_soft_prompt(tmp_path, llama_runner._model)


def test_a_state_of_an_unknown_layout_is_refused(llama_runner: LlamaCppRunner) -> None:
    cells = np.zeros((8, 3, 64), np.float32)
    with pytest.raises(AdapterUnavailable, match="lays its cells out"):
        with_cells(b"", cells)
    lane = llama_runner._lane(None, None)  # without flash attention, so with transposed values
    with pytest.raises(AdapterUnavailable, match="lays its cells out"):
        PrefixTuning(cells).fill(lane, 0, threads=1)
    lane.clear()


def test_numbers_beyond_16_bit_floats_are_refused(
    llama_home: Path, llama_runner: LlamaCppRunner, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    save_kind("PREFIX_TUNING", llama_home / "base", tmp_path / "huge")
    path = tmp_path / "huge" / adapters.WEIGHTS_NAME
    save_file({name: weights * 1e6 for name, weights in load_file(path).items()}, path)
    adapter = sealed(tmp_path / "huge", llama_runner.info.sha256)
    with pytest.raises(AdapterUnavailable, match="do not fit into 16-bit floats"):
        llama_runner._lane("huge", adapter)
    assert len(llama_runner._spare) == 1, "the context is kept for the next adapter"


def test_dora_is_sent_to_torch(llama_home: Path, llama_runner: LlamaCppRunner, tmp_path: Path) -> None:
    save_lora(llama_home / "base", tmp_path / "dora", r=4, use_dora=True)
    adapter = sealed(tmp_path / "dora", llama_runner.info.sha256)
    with pytest.raises(AdapterUnavailable, match=r"uses DoRA.*torch backend"):
        llama_runner._lane("dora", adapter)
