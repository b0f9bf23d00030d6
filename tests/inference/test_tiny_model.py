"""The model that ships: small enough, whole, and better than chance at keeping facts."""

import subprocess
import sys

import pytest

from inference.tiny import GGUF_PATH, MODEL_DIR
from inference.tiny.corpus import Pair

MEGABYTE = 1_000_000


def test_the_folder_is_whole_and_small() -> None:
    names = {path.name for path in MODEL_DIR.iterdir()}
    assert {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"),
        *("tokenizer_config.json", "MODEL_CARD.md", GGUF_PATH.name),
    } <= names
    assert sum(path.stat().st_size for path in MODEL_DIR.iterdir()) < 40 * MEGABYTE


def test_asking_for_the_path_loads_nothing_heavy() -> None:
    code = (
        "import sys, inference.tiny; assert inference.tiny.GGUF_PATH.is_file();"
        "print({'torch', 'transformers', 'llama_cpp', 'tokenizers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.model
def test_held_out_english_drafts_keep_facts_length_and_style() -> None:
    """The model that ships writes English; the corpus is a language ahead of it."""
    from inference.tiny.evaluate import StyleClassifier, cell, figures, heldout_briefs, write_samples

    pairs = _english(heldout_briefs(count=48, seed=2))
    samples = write_samples(str(GGUF_PATH), pairs, seed=2)
    found = figures(cell(samples, "en"), StyleClassifier("en", seed=2))
    assert found["facts_kept"] >= 0.93
    assert found["forbidden_said"] == 0.0
    assert found["style_recognised"] >= 0.9
    assert found["length_within_25_percent"] >= 0.9
    assert found["ended"] == 1.0


def _english(pairs: list[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.language == "en"]
