"""A training of a few steps: packing, learning, resuming."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from inference.tiny.batches import IGNORED, PackedPairs
from inference.tiny.recipe import Recipe
from inference.tiny.tokenizer import CONTROL_TOKENS, load_tokenizer, save_tokenizer, train_tokenizer
from inference.tiny.train import Trainer, own_document, rate_share

SMALL = Recipe(
    steps=6, rows=2, length=640, warmup_steps=2, hidden=32, feed_forward=64, layers=2, heads=2, kv_heads=2,
    checkpoint_every=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(seed=1, num_pairs=80, vocab_size=700), folder)
    return folder


def trainer(tokenizer_dir: Path, out: Path) -> Trainer:
    return Trainer(SMALL, tokenizer_dir=tokenizer_dir, out=out, workers=0, compiled=False)


def weights_of(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_stopped_training_ends_with_the_same_weights(tokenizer_dir: Path, tmp_path: Path) -> None:
    trainer(tokenizer_dir, tmp_path / "whole").run()
    stopped = trainer(tokenizer_dir, tmp_path / "stopped")
    data = packed(tokenizer_dir)
    for number in range(SMALL.checkpoint_every):
        stopped.train_step(data[number])
        stopped.step += 1
    stopped.save_checkpoint()
    trainer(tokenizer_dir, tmp_path / "stopped").run()
    assert weights_of(tmp_path / "stopped") == weights_of(tmp_path / "whole")


def test_training_lowers_the_loss_and_saves_a_model(tokenizer_dir: Path, tmp_path: Path) -> None:
    learner = trainer(tokenizer_dir, tmp_path)
    batch = packed(tokenizer_dir)[0]
    before = learner.loss(batch).item()
    learner.run()
    assert learner.loss(batch).item() < before
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert saved.config.vocab_size == load_tokenizer(tokenizer_dir).get_vocab_size()


def test_a_checkpoint_of_other_numbers_is_refused(tokenizer_dir: Path, tmp_path: Path) -> None:
    trainer(tokenizer_dir, tmp_path).save_checkpoint()
    other = Trainer(
        Recipe(**{**vars(SMALL), "learning_rate": 1.0}),
        tokenizer_dir=tokenizer_dir, out=tmp_path, workers=0, compiled=False,
    )  # fmt: skip
    with pytest.raises(SystemExit, match="other numbers"):
        other.run()


def packed(tokenizer_dir: Path) -> PackedPairs:
    return PackedPairs(tokenizer_dir, seed=1, rows=2, length=640, first=0, last=SMALL.steps)


def test_labels_are_the_completions_shifted_by_one(tokenizer_dir: Path) -> None:
    batch = packed(tokenizer_dir)[2]
    end = CONTROL_TOKENS.index("<|im_end|>")
    counted = batch.labels != IGNORED
    assert counted.any()
    ends_in_row = torch.eq(batch.labels, end).sum(dim=1)
    assert ends_in_row.tolist() == batch.documents.max(dim=1).values.tolist()
    inside = counted[:, :-1] & counted[:, 1:] & (batch.documents[:, :-1] == batch.documents[:, 1:])
    assert (batch.ids[:, 1:][inside] == batch.labels[:, :-1][inside]).all()
    assert not counted[batch.documents == 0].any()


def test_a_token_sees_its_own_pair_and_the_past_only() -> None:
    mask = own_document(torch.tensor([[1, 1, 2, 2]]))[0, 0]
    assert mask.tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, True, True],
    ]


def test_the_rate_rises_and_falls() -> None:
    recipe = Recipe(steps=100, warmup_steps=10, final_share=0.1)
    shares = [rate_share(step, recipe) for step in range(101)]
    assert shares[9] == 1.0 and shares[0] == pytest.approx(0.1)
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[100] == pytest.approx(0.1)
