"""The model that ships, examined on 500 held-out briefs."""

from bench.form import Row
from inference.tiny import GGUF_PATH
from inference.tiny.ask import STYLES
from inference.tiny.corpus import LANGUAGES
from inference.tiny.evaluate import StyleClassifier, cell, facts_kept, figures, heldout_briefs, write_samples

NUM_BRIEFS = 500
SEED = 1
_BARS = {
    "forbidden_said": ("must-not-say terms said", "<= 0.01", 0.0, 0.01),
    "style_recognised": ("style named by a classifier", ">= 0.95", 0.95, 1.0),
    "length_within_25_percent": ("length within 25 % of that asked", ">= 0.9", 0.9, 1.0),
    "with_repeated_sentence": ("texts with a repeated sentence", "<= 0.01", 0.0, 0.01),
    "distinct_3_ratio": ("distinct 3-grams, share of the corpus's", "0.9 to 1.1", 0.9, 1.1),
}
_MIN_FACTS = 0.97


def measure() -> list[Row]:
    pairs = heldout_briefs(count=NUM_BRIEFS, seed=SEED)
    samples = write_samples(str(GGUF_PATH), pairs, seed=SEED)
    alone = write_samples(str(GGUF_PATH), pairs, seed=SEED, helped=False)
    rows: list[Row] = []
    for language in LANGUAGES:
        for style in STYLES:
            kept = facts_kept(cell(samples, language, style))
            kept_alone = facts_kept(cell(alone, language, style))
            rows.append(
                Row(
                    claim=f"{language} {style}: must-say facts in the draft",
                    figure=kept,
                    unit="",
                    peer=f"{kept_alone:.3g} without the engine's help",
                    bar=f">= {_MIN_FACTS}",
                    holds=kept >= _MIN_FACTS,
                )
            )
        classifier = StyleClassifier(language, seed=SEED)
        found = figures(cell(samples, language), classifier)
        free = figures(cell(alone, language), classifier)
        for name, (label, bar, low, high) in _BARS.items():
            peer = f"{free[name]:.3g} without the engine's help" if name == "forbidden_said" else ""
            rows.append(
                Row(
                    claim=f"{language}: {label}",
                    figure=found[name],
                    unit="",
                    peer=peer,
                    bar=bar,
                    holds=low <= found[name] <= high,
                )
            )
    return rows
