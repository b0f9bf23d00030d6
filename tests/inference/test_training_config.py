"""The settings of a run: defaults that work, and every mistake in one message."""

import json
from pathlib import Path

import pytest

from inference.training.config import EvaluateConfig, SftConfig
from inference.training.errors import BadConfig

NEEDED = {"model_dir": "model", "base_sha256": "0" * 64}


def test_model_and_hash_are_enough() -> None:
    config = SftConfig.parse(NEEDED)
    assert (config.seed, config.rank, config.alpha) == (7, 16, 32)


def test_all_mistakes_are_reported_at_once() -> None:
    wrong = {
        "base_sha256": "",
        "rank": 0,
        "seed": True,
        "num_epochs": 2.5,
        "learning_rate": "fast",
        "dropout": float("nan"),
        "device": "abacus",
        "epochs": 3,
    }
    with pytest.raises(BadConfig) as caught:
        SftConfig.parse(wrong)
    message = str(caught.value)
    assert message.count(";") == len(wrong)  # the wrong ones and the missing model_dir
    for name in [*wrong, "model_dir"]:
        assert f"{name} " in message
    assert "rank must be a whole number from 1 to 256, not 0" in message
    assert "epochs is not an option" in message


def test_settings_made_in_code_are_checked_too() -> None:
    with pytest.raises(BadConfig, match=r"rank .*; dropout "):
        SftConfig(model_dir="model", base_sha256="0" * 64, rank=0, dropout=1.0)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1]", b"null"])
def test_file_that_is_not_an_object(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(BadConfig):
        SftConfig.read(tmp_path / "config.json")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"config\.json cannot be read"):
        SftConfig.read(tmp_path / "config.json")


def test_identity_leaves_out_where_and_how_fast() -> None:
    here = SftConfig.parse(NEEDED)
    there = SftConfig.parse(NEEDED | {"model_dir": "elsewhere", "num_threads": 4, "checkpoint_steps": 3})
    other = SftConfig.parse(NEEDED | {"learning_rate": 0.01})
    assert here.identity() == there.identity() != other.identity()


def test_evaluation_needs_no_adapter(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_dir": "model", "adapter_dir": None}))
    assert EvaluateConfig.read(path).adapter_dir is None
    with pytest.raises(BadConfig, match="adapter_dir must be a text"):
        EvaluateConfig.parse({"model_dir": "model", "adapter_dir": 3})
