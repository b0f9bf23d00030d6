"""The model that ships: small enough, whole, and better than chance at keeping facts."""

import subprocess
import sys

import pytest

from inference.tiny import GGUF_PATH, MODEL_DIR
from inference.tiny.ask import STYLES
from inference.tiny.card import SAMPLES_PER_CELL
from inference.tiny.corpus import LANGUAGES

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
def test_held_out_drafts_keep_facts_length_and_style() -> None:
    from inference.tiny.evaluate import StyleClassifier, cell, figures, heldout_briefs, write_samples

    samples = write_samples(str(GGUF_PATH), heldout_briefs(count=72, seed=2), seed=2)
    for language in LANGUAGES:
        found = figures(cell(samples, language), StyleClassifier(language, seed=2))
        assert found["facts_kept"] >= 0.85
        assert found["forbidden_said"] == 0.0
        assert found["style_recognised"] >= 0.9
        assert found["length_within_25_percent"] >= 0.85
        assert found["ended"] >= 0.97


def test_the_card_shows_samples_of_every_style_and_language() -> None:
    card = (MODEL_DIR / "MODEL_CARD.md").read_text("utf-8")
    _, _, samples = card.partition("## Samples")
    for language in ("English", "Chinese"):
        for style in STYLES:
            _, _, block = samples.partition(f"### {language} {style}")
            assert block.partition("###")[0].count("```\n\n>") == SAMPLES_PER_CELL
