"""The part of the model card that is written by the model: unpicked samples of every style and language."""

from collections.abc import Sequence
from pathlib import Path

from inference.tiny.ask import STYLES
from inference.tiny.corpus import LANGUAGES
from inference.tiny.evaluate import Sample, cell, heldout_briefs, write_samples

SAMPLES_PER_CELL = 20
_HEADING = "## Samples"
_LANGUAGE_NAMES = {"en": "English", "zh": "Chinese"}


def write_card_samples(card: Path, model: Path, *, seed: int) -> None:
    """Replace the last section of the card with the first drafts of every style and language."""
    pairs = heldout_briefs(count=SAMPLES_PER_CELL * len(STYLES) * len(LANGUAGES), seed=seed)
    samples = write_samples(str(model), pairs, seed=seed)
    kept, _, _ = card.read_text("utf-8").partition(f"\n{_HEADING}\n")
    card.write_text(f"{kept.rstrip()}\n\n{_HEADING}\n\n{_section(samples, seed)}", "utf-8")


def _section(samples: Sequence[Sample], seed: int) -> str:
    blocks = [
        f"The first {SAMPLES_PER_CELL} held-out briefs of seed {seed} for every style and language, none "
        "left out. The brief stands above, the draft below."
    ]
    for language in LANGUAGES:
        for style in STYLES:
            blocks.append(f"### {_LANGUAGE_NAMES[language]} {style}")
            blocks += [
                _block(number, sample) for number, sample in enumerate(cell(samples, language, style), 1)
            ]
    return "\n\n".join(blocks) + "\n"


def _block(number: int, sample: Sample) -> str:
    brief = sample.pair.messages[-1]["text"]
    quoted = "\n".join(f"> {line}".rstrip() for line in sample.text.strip().splitlines())
    return f"**{number}**\n\n```\n{brief}\n```\n\n{quoted}"
