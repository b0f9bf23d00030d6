"""Exported models and adapters compute what torch computes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf as gguf_format
import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from inference import gguf
from inference.errors import AdapterUnavailable, ModelUnavailable
from tests.support.families import FAMILIES, LORAS, save_lora, write_family
from tests.support.logits import Logits, llama_logits, relative_error, silence, torch_logits

IDS = (5, 80, 200, 17, 301, 44, 44, 499, 3, 120, 260, 7, 99, 410, 18, 333)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}

# peft 0.21 asks transformers 5.23 for a property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(autouse=True, scope="module")
def quiet_library() -> Iterator[None]:
    silence()
    yield


@pytest.fixture(scope="module")
def llama_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To read, or to copy into a test's own folder."""
    return write_family(tmp_path_factory.mktemp("families") / "llama", "llama")


@pytest.fixture
def own_llama(llama_dir: Path, tmp_path: Path) -> Path:
    """One that the test may change."""
    folder = tmp_path / "llama"
    folder.mkdir()
    for file in llama_dir.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def edit_json(path: Path, change: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def reference_logits(folder: Path) -> Logits:
    return torch_logits(AutoModelForCausalLM.from_pretrained(folder), IDS)


def assert_same(ours: Logits, reference: Logits, *, tolerance: float = 2e-3) -> None:
    assert relative_error(ours, reference) < tolerance
    assert (ours.argmax(1) == reference.argmax(1)).all()


# -- models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_computes_what_torch_computes_base_and_with_lora(family: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path / family, family)
    exported = gguf.export_model(folder, tmp_path / "model.gguf", quantization="F32")
    reference = reference_logits(folder)
    # llama.cpp looks Gemma's GELU up in a table of 16-bit floats
    assert_same(llama_logits(exported, IDS), reference, tolerance=1e-3 if "gemma" in family else 1e-5)

    adapted = save_lora(folder, tmp_path / "adapter", **LORAS["rslora and patterns"])
    lora = gguf.export_lora(tmp_path / "adapter", folder, tmp_path / "adapter.gguf")
    assert np.abs(torch_logits(adapted, IDS) - reference).max() > 0.1
    assert_same(llama_logits(exported, IDS, lora), torch_logits(adapted, IDS))


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"rope_parameters": LLAMA3_ROPE}),
        ("llama", {"rope_parameters": LINEAR_ROPE}),
        ("llama", {"attention_bias": True}),
        ("llama", {"tie_word_embeddings": False}),
        ("mistral", {"sliding_window": 256}),
        ("gemma2", {"query_pre_attn_scalar": 16, "final_logit_softcapping": 3.0}),
        (
            "gemma3_text",
            {"rope_parameters": {"full_attention": LINEAR_ROPE, "sliding_attention": {"rope_theta": 500.0}}},
        ),
        ("gemma3_text", {"final_logit_softcapping": 3.0, "sliding_window_pattern": 2}),
    ],
    ids=str,
)
def test_what_a_config_asks_for_is_carried_over(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    folder = write_family(tmp_path / family, family, **changes)
    exported = gguf.export_model(folder, tmp_path / "model.gguf", quantization="F32")
    assert_same(llama_logits(exported, IDS), reference_logits(folder))


def test_half_precision_is_the_default(llama_dir: Path, tmp_path: Path) -> None:
    exported = gguf.export_model(llama_dir, tmp_path / "model.gguf")
    assert_same(llama_logits(exported, IDS), reference_logits(llama_dir))
    assert types_of(exported)["blk.0.attn_q.weight"] == "F16"


def test_a_shape_that_llama_cpp_does_not_load_is_refused(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "qwen2", "qwen2", head_dim=64)
    with pytest.raises(ModelUnavailable, match="does not load"):
        gguf.export_model(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model_type": "mamba"}, "is a mamba model; llama, mistral, .* can be exported"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            r"scales its positions \(dynamic\)",
        ),
        ({"model_type": "mistral", "sliding_window": 64}, "uses a sliding window"),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 64}, "uses a sliding window"),
        ({"hidden_act": "relu"}, "has the activation relu"),
        (
            {"model_type": "gemma", "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": False},
            "output matrix",
        ),
        ({"model_type": "gemma2", "attn_logit_softcapping": None}, "has no soft caps"),
        ({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}, "caps its attention scores"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "reads in both directions"),
        ({"model_type": "gemma2", "hidden_size": 130}, "is not a valid config"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_models_without_exact_counterpart_are_refused(
    change: dict[str, Any], complaint: str, own_llama: Path, tmp_path: Path
) -> None:
    edit_json(own_llama / "config.json", change)
    with pytest.raises(ModelUnavailable, match=complaint):
        gguf.export_model(own_llama, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_all_reasons_are_told_at_once(own_llama: Path, tmp_path: Path) -> None:
    edit_json(own_llama / "config.json", {"hidden_act": "relu", "model_type": "mistral", "sliding_window": 9})
    with pytest.raises(ModelUnavailable, match="uses a sliding window and has the activation relu"):
        gguf.export_model(own_llama, tmp_path / "model.gguf")


# -- quantization ----------------------------------------------------------------------------------


def types_of(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in gguf_format.GGUFReader(path).tensors}


@pytest.fixture(scope="module")
def wide_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 256, so that the K-quants apply."""
    folder = tmp_path_factory.mktemp("families") / "wide"
    return write_family(folder, "llama", hidden_size=256, head_dim=64, intermediate_size=256)


@pytest.mark.parametrize(
    ("quantization", "kind", "at_least"),
    [("Q8_0", "Q8_0", 0.998), ("Q6_K", "Q6_K", 0.985), ("Q4_K_M", "Q4_K", 0.9), ("Q4_0", "Q4_0", 0.85)],
)
def test_quantized_models_stay_close(
    quantization: str, kind: str, at_least: float, wide_dir: Path, tmp_path: Path
) -> None:
    full = gguf.export_model(wide_dir, tmp_path / "full.gguf")
    small = gguf.export_model(wide_dir, tmp_path / "small.gguf", quantization=quantization)
    assert small.stat().st_size < full.stat().st_size
    assert types_of(small)["blk.1.attn_q.weight"] == types_of(small)["blk.1.ffn_up.weight"] == kind
    correlation = np.corrcoef(llama_logits(small, IDS).ravel(), llama_logits(full, IDS).ravel())[0, 1]
    assert correlation > at_least


@pytest.mark.parametrize("attention", gguf.ATTENTION_TYPES)
def test_the_attention_is_kept_finer_on_request(attention: str, wide_dir: Path, tmp_path: Path) -> None:
    even = gguf.export_model(wide_dir, tmp_path / "even.gguf", quantization="Q4_0")
    kept = gguf.export_model(wide_dir, tmp_path / "kept.gguf", quantization="Q4_0", attention=attention)
    types = types_of(kept)
    for layer in range(4):
        for part in ("q", "k", "v", "output"):
            assert types.pop(f"blk.{layer}.attn_{part}.weight") == attention
    assert types.items() <= types_of(even).items()
    reference = reference_logits(wide_dir)
    assert relative_error(llama_logits(kept, IDS), reference) < relative_error(
        llama_logits(even, IDS), reference
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"quantization": "Q3_X"}, "Q3_X; choose one of F32, F16, Q8_0"),
        ({"quantization": "Q4_0", "attention": "Q3_X"}, "Q3_X for the attention; choose one of F16, Q8_0"),
        ({"quantization": "Q6_K", "attention": "Q6_K"}, "not finer than a Q6_K model"),
        ({"quantization": "F16", "attention": "Q8_0"}, "not finer than a F16 model"),
    ],
    ids=str,
)
def test_types_that_cannot_be_are_refused_before_any_work(
    options: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelUnavailable, match=complaint):
        gguf.export_model(tmp_path / "no such folder", tmp_path / "model.gguf", **options)


# -- adapters --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", LORAS.values(), ids=LORAS)
def test_an_adapter_keeps_the_scale_of_every_module(
    options: dict[str, Any], llama_dir: Path, tmp_path: Path
) -> None:
    exported = gguf.export_model(llama_dir, tmp_path / "model.gguf", quantization="F32")
    adapted = save_lora(llama_dir, tmp_path / "adapter", **options)
    lora = gguf.export_lora(tmp_path / "adapter", llama_dir, tmp_path / "adapter.gguf")
    assert_same(llama_logits(exported, IDS, lora), torch_logits(adapted, IDS))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"trainable_token_indices": [1]}, "embeddings"),
        ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING, not LORA"),
        ({"init_lora_weights": "pissa_niter_4"}, "changed the base model .*pissa_niter_4"),
        ({"use_qalora": True}, "variant of LoRA .use_qalora"),
        ({"use_dora": True, "bias": "all"}, "DoRA .*; it trains biases"),
    ],
    ids=str,
)
def test_adapters_that_llama_cpp_cannot_run_are_refused(
    change: dict[str, Any], complaint: str, llama_dir: Path, tmp_path: Path
) -> None:
    save_lora(llama_dir, tmp_path / "adapter", r=2)
    edit_json(tmp_path / "adapter" / "adapter_config.json", change)
    with pytest.raises(AdapterUnavailable, match=complaint):
        gguf.export_lora(tmp_path / "adapter", llama_dir, tmp_path / "adapter.gguf")
    assert not (tmp_path / "adapter.gguf").exists()


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # peft warns about tied embeddings; the refusal is ours
def test_trained_embeddings_are_refused(target: str, llama_dir: Path, tmp_path: Path) -> None:
    save_lora(llama_dir, tmp_path / "adapter", r=2, target_modules=[target])
    with pytest.raises(AdapterUnavailable, match=r"embed|lm_head"):
        gguf.export_lora(tmp_path / "adapter", llama_dir, tmp_path / "adapter.gguf")
    assert not (tmp_path / "adapter.gguf").exists()
