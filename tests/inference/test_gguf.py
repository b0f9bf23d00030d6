"""Exported models and adapters compute what torch computes."""

import ctypes
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf as gguf_format
import numpy as np
import pytest
import torch
from llama_cpp import llama_cpp as llama
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM

from inference import gguf
from inference.errors import AdapterUnavailable, ModelUnavailable
from inference.tiny.tokenizer import save_tokenizer, train_tokenizer

_VOCAB = 512
_IDS = [5, 80, 200, 17, 301, 44, 44, 499, 3, 120, 260, 7]
_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_REMEMBERED = llama.llama_log_callback(lambda level, text, data: None)


# peft 0.21 asks transformers 5.23 for a property by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(autouse=True, scope="module")
def quiet_library() -> Iterator[None]:
    llama.llama_log_set(_REMEMBERED, ctypes.c_void_p())
    yield


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(seed=1, num_pairs=60, vocab_size=_VOCAB), folder)
    return folder


def random_model(folder: Path, tokenizer_dir: Path, family: str, **changes: Any) -> Path:
    torch.manual_seed(7)
    shape: dict[str, Any] = {
        "vocab_size": _VOCAB, "hidden_size": 128, "intermediate_size": 160, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "head_dim": 32, "tie_word_embeddings": family == "llama", "bos_token_id": None, "eos_token_id": 2,
        "pad_token_id": 0, "initializer_range": 0.08, "sliding_window": None,
    }  # fmt: skip
    config = AutoConfig.for_model(family, **{**shape, **changes})
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.float().save_pretrained(folder)
    shutil.copy(tokenizer_dir / "tokenizer.json", folder)
    return folder


def llama_logits(path: Path, adapter: Path | None = None) -> np.ndarray:
    """Logits of every row, shape (tokens, vocabulary)."""
    model = llama.llama_model_load_from_file(os.fsencode(path), llama.llama_model_default_params())
    assert model, f"llama.cpp does not load {path}"
    params = llama.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 64, 1, 1
    params.type_k = params.type_v = gguf_format.GGMLQuantizationType.F32
    params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama.llama_init_from_model(model, params)
    if adapter is not None:
        lora = llama.llama_adapter_lora_init(model, os.fsencode(adapter))
        scales = (ctypes.c_float * 1)(1.0)
        adapters = (llama.llama_adapter_lora_p_ctypes * 1)(lora)
        assert llama.llama_set_adapters_lora(context, adapters, 1, scales) == 0
    batch = llama.llama_batch_init(len(_IDS), 0, 1)
    batch.n_tokens = len(_IDS)
    for row, token in enumerate(_IDS):
        batch.token[row], batch.pos[row], batch.n_seq_id[row] = token, row, 1
        batch.seq_id[row][0], batch.logits[row] = 0, True
    assert llama.llama_decode(context, batch) == 0
    row_logits = (llama.llama_get_logits_ith(context, row) for row in range(len(_IDS)))
    rows = [np.ctypeslib.as_array(logits, (_VOCAB,)).copy() for logits in row_logits]
    llama.llama_batch_free(batch)
    llama.llama_free(context)
    llama.llama_model_free(model)
    return np.stack(rows)


def torch_logits(model: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model(torch.tensor([_IDS])).logits[0].float().numpy()
    return found


def assert_same(ours: np.ndarray, reference: np.ndarray) -> None:
    error = np.abs(ours - reference).max() / np.abs(reference).max()
    assert error < 2e-3
    assert (ours.argmax(1) == reference.argmax(1)).all()


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_logits_equal_those_of_torch(family: str, tmp_path: Path, tokenizer_dir: Path) -> None:
    folder = random_model(tmp_path / family, tokenizer_dir, family)
    exported = gguf.export_model(folder, tmp_path / "model.gguf")
    reference = torch_logits(AutoModelForCausalLM.from_pretrained(folder))
    assert_same(llama_logits(exported), reference)


def test_a_shape_that_llama_cpp_does_not_load_is_refused(tmp_path: Path, tokenizer_dir: Path) -> None:
    folder = random_model(tmp_path / "qwen2", tokenizer_dir, "qwen2", head_dim=64)
    with pytest.raises(ModelUnavailable, match="does not load"):
        gguf.export_model(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"r": 4, "lora_alpha": 8},
        {"r": 8, "lora_alpha": 16, "use_rslora": True},
        {
            "r": 4,
            "lora_alpha": 8,
            "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 6},
            "alpha_pattern": {"k_proj": 32, r"layers\.\d\.mlp\.up_proj": 3},
        },
    ],
    ids=["plain", "rslora", "patterns"],
)
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_an_adapter_changes_logits_as_in_torch(
    family: str, options: dict[str, Any], tmp_path: Path, tokenizer_dir: Path
) -> None:
    folder = random_model(tmp_path / family, tokenizer_dir, family)
    exported = gguf.export_model(folder, tmp_path / "model.gguf")
    plain = llama_logits(exported)
    adapted = save_adapter(folder, tmp_path / "adapter", **options)
    lora = gguf.export_lora(tmp_path / "adapter", folder, tmp_path / "adapter.gguf")
    assert np.abs(torch_logits(adapted) - plain).max() > 0.1
    assert_same(llama_logits(exported, lora), torch_logits(adapted))


def save_adapter(base: Path, folder: Path, **options: Any) -> torch.nn.Module:
    """A LoRA on all linear layers whose B is not zero, so that it does something."""
    torch.manual_seed(3)
    config = LoraConfig(
        target_modules=options.pop("target_modules", _LINEAR), task_type="CAUSAL_LM", **options
    )
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).eval()
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.05)
    adapted.save_pretrained(str(folder))
    return adapted


@pytest.mark.parametrize("quantization", ["Q8_0", "Q4_0"])
def test_quantized_models_stay_close(quantization: str, tmp_path: Path, tokenizer_dir: Path) -> None:
    folder = random_model(tmp_path / "llama", tokenizer_dir, "llama")
    full = gguf.export_model(folder, tmp_path / "full.gguf")
    small = gguf.export_model(folder, tmp_path / "small.gguf", quantization=quantization)
    assert small.stat().st_size < full.stat().st_size
    correlation = np.corrcoef(llama_logits(small).ravel(), llama_logits(full).ravel())[0, 1]
    assert correlation > (0.999 if quantization == "Q8_0" else 0.9)


def test_a_tokenizer_that_llama_cpp_would_split_otherwise_is_refused(
    tmp_path: Path, tokenizer_dir: Path
) -> None:
    folder = random_model(tmp_path / "llama", tokenizer_dir, "llama")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("e", "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(ModelUnavailable, match="splits like this"):
        gguf.export_model(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_a_tokenizer_that_is_not_bpe_is_refused(tmp_path: Path, tokenizer_dir: Path) -> None:
    folder = random_model(tmp_path / "llama", tokenizer_dir, "llama")
    Tokenizer(models.Unigram([("a", 0.0)])).save(str(folder / "tokenizer.json"))
    with pytest.raises(ModelUnavailable, match="no byte-level BPE"):
        gguf.export_model(folder, tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model_type": "mamba"}, "is a mamba model"),
        ({"rope_scaling": {"rope_type": "yarn"}, "rope_parameters": None}, r"scales its positions \(yarn\)"),
        ({"model_type": "mistral", "sliding_window": 64}, "sliding window"),
    ],
)
def test_models_without_exact_counterpart_are_refused(
    change: dict[str, Any], complaint: str, tmp_path: Path, tokenizer_dir: Path
) -> None:
    folder = random_model(tmp_path / "llama", tokenizer_dir, "llama")
    edit_json(folder / "config.json", change)
    with pytest.raises(ModelUnavailable, match=complaint):
        gguf.export_model(folder, tmp_path / "model.gguf")


def test_an_unknown_quantization_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="Q3_X; choose one of F32, F16, Q8_0"):
        gguf.export_model(tmp_path, tmp_path / "model.gguf", quantization="Q3_X")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"trainable_token_indices": [1]}, "embeddings"),
        ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING, not LORA"),
    ],
)
def test_adapters_that_llama_cpp_cannot_run_are_refused(
    change: dict[str, Any], complaint: str, tmp_path: Path, tokenizer_dir: Path
) -> None:
    folder = random_model(tmp_path / "llama", tokenizer_dir, "llama")
    save_adapter(folder, tmp_path / "adapter", r=2)
    edit_json(tmp_path / "adapter" / "adapter_config.json", change)
    with pytest.raises(AdapterUnavailable, match=complaint):
        gguf.export_lora(tmp_path / "adapter", folder, tmp_path / "adapter.gguf")
    assert not (tmp_path / "adapter.gguf").exists()


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # peft warns about tied embeddings; the refusal is ours
def test_trained_embeddings_are_refused(target: str, tmp_path: Path, tokenizer_dir: Path) -> None:
    folder = random_model(tmp_path / "llama", tokenizer_dir, "llama")
    save_adapter(folder, tmp_path / "adapter", r=2, target_modules=[target])
    with pytest.raises(AdapterUnavailable, match=r"embed|lm_head"):
        gguf.export_lora(tmp_path / "adapter", folder, tmp_path / "adapter.gguf")


def edit_json(path: Path, change: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
