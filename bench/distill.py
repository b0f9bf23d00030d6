"""Does a teacher help a small student? The model that ships teaches; the texts alone are the peer."""

import tempfile
from pathlib import Path

import torch

from bench.form import Row
from inference.tiny import MODEL_DIR
from inference.tiny.recipe import Recipe
from inference.tiny.train import Trainer

RECIPE = Recipe(
    steps=400, rows=8, length=512, learning_rate=3e-3, warmup_steps=40,
    hidden=128, feed_forward=384, layers=4, heads=4, kv_heads=4, checkpoint_every=400,
)  # fmt: skip
_HELDOUT_BATCHES = 12


def measure() -> list[Row]:
    """Two trainings of the same seed, texts and steps; only the teacher differs."""
    plain, taught = _heldout_loss(None), _heldout_loss(MODEL_DIR)
    return [
        Row(claim="student taught by texts, held-out loss", figure=plain, unit="nats/token"),
        Row(
            claim="student taught by the model that ships as well, held-out loss",
            figure=taught,
            unit="nats/token",
            peer=f"{plain:.3f} without a teacher",
        ),
        Row(claim="perplexity with a teacher, share of that without", figure=_ratio(taught, plain), unit=""),
    ]


def _heldout_loss(teacher: Path | None) -> float:
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(RECIPE, tokenizer_dir=MODEL_DIR, out=Path(folder), workers=1, teacher=teacher)
        trainer.run()
        trainer.model.to(torch.float32)  # type: ignore[arg-type]  # transformers wraps it without types
        return trainer.heldout_loss(_HELDOUT_BATCHES)


def _ratio(taught: float, plain: float) -> float:
    return float(torch.exp(torch.tensor(taught - plain)))
