"""A training of a few steps: packing, learning, resuming."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from inference.tiny.batches import IGNORED, PackedPairs
from inference.tiny.recipe import Recipe
from inference.tiny.tokenizer import CONTROL_TOKENS, load_tokenizer, save_tokenizer, train_tokenizer
from inference.tiny.train import Trainer, distance, own_document, rate_share

SMALL = Recipe(
    steps=6, rows=2, length=640, warmup_steps=2, hidden=32, feed_forward=64, layers=2, heads=2, kv_heads=2,
    checkpoint_every=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(seed=1, num_pairs=80, vocab_size=700), folder)
    return folder


def trainer(tokenizer_dir: Path, out: Path, **options: Any) -> Trainer:
    recipe = Recipe(**{**vars(SMALL), **options.pop("recipe", {})})
    return Trainer(recipe, tokenizer_dir=tokenizer_dir, out=out, **options)


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
    with pytest.raises(SystemExit, match="other numbers"):
        trainer(tokenizer_dir, tmp_path, recipe={"learning_rate": 1.0}).run()


def test_the_same_seed_gives_the_same_weights(tokenizer_dir: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        trainer(tokenizer_dir, tmp_path / name).run()
    assert weights_of(tmp_path / "one") == weights_of(tmp_path / "two")
    trainer(tokenizer_dir, tmp_path / "three", recipe={"seed": 2}).run()
    assert weights_of(tmp_path / "three") != weights_of(tmp_path / "one")


def test_a_loss_plot_is_drawn(tokenizer_dir: Path, tmp_path: Path) -> None:
    trainer(tokenizer_dir, tmp_path).run()
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_batch_read_in_parts_gives_the_same_loss_and_step(tokenizer_dir: Path, tmp_path: Path) -> None:
    whole = trainer(tokenizer_dir, tmp_path / "whole")
    parted = trainer(tokenizer_dir, tmp_path / "parted", recipe={"accumulate": 2})
    batch = packed(tokenizer_dir)[0]
    assert parted.train_step(batch).item() == pytest.approx(whole.train_step(batch).item(), abs=1e-5)
    for one, other in zip(whole.model.parameters(), parted.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)
    with pytest.raises(SystemExit, match="equal parts"):
        trainer(tokenizer_dir, tmp_path, recipe={"accumulate": 3})


def test_a_training_begins_with_the_weights_of_another_vocabulary(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    earlier = trainer(tokenizer_dir, tmp_path / "earlier")
    earlier.run()
    shutil.copy(tokenizer_dir / "tokenizer.json", tmp_path / "earlier")
    larger = tmp_path / "larger"
    save_tokenizer(train_tokenizer(seed=2, num_pairs=80, vocab_size=900), larger)

    begun = trainer(larger, tmp_path / "begun", start=tmp_path / "earlier")

    before, now = earlier.model.state_dict(), begun.model.state_dict()
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(now[name], before[name].float())
    token = " the".replace(" ", "Ġ")
    old_id = load_tokenizer(tokenizer_dir).get_vocab()[token]
    new_id = load_tokenizer(larger).get_vocab()[token]
    embeddings = "model.embed_tokens.weight"
    assert torch.equal(now[embeddings][new_id], before[embeddings][old_id].float())
    with pytest.raises(SystemExit, match="another shape"):
        trainer(larger, tmp_path / "wide", start=tmp_path / "earlier", recipe={"feed_forward": 96})


def test_a_student_comes_closer_to_its_teacher(tokenizer_dir: Path, tmp_path: Path) -> None:
    teacher = trainer(tokenizer_dir, tmp_path / "teacher", recipe={"seed": 5, "hidden": 64})
    teacher.run()
    shutil.copy(tokenizer_dir / "tokenizer.json", tmp_path / "teacher")
    student = trainer(
        tokenizer_dir, tmp_path / "student", teacher=tmp_path / "teacher", recipe={"teacher_share": 1.0}
    )
    student.model.train()
    batch = packed(tokenizer_dir)[0]
    before = student.loss(batch).item()
    student.run()
    assert student.loss(batch).item() < before


def test_the_held_out_loss_knows_no_teacher(tokenizer_dir: Path, tmp_path: Path) -> None:
    trainer(tokenizer_dir, tmp_path / "teacher").run()
    shutil.copy(tokenizer_dir / "tokenizer.json", tmp_path / "teacher")
    alone = trainer(tokenizer_dir, tmp_path / "alone")
    taught = trainer(tokenizer_dir, tmp_path / "taught", teacher=tmp_path / "teacher")
    assert alone.heldout_loss(2) == taught.heldout_loss(2) > 0


def test_a_teacher_of_another_vocabulary_is_refused(tokenizer_dir: Path, tmp_path: Path) -> None:
    trainer(tokenizer_dir, tmp_path / "teacher").run()
    save_tokenizer(train_tokenizer(seed=2, num_pairs=80, vocab_size=900), tmp_path / "teacher")
    with pytest.raises(SystemExit, match="another vocabulary"):
        trainer(tokenizer_dir, tmp_path / "student", teacher=tmp_path / "teacher")


def test_the_distance_of_equal_distributions_is_zero() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert distance(logits, logits, 2.0).item() == pytest.approx(0, abs=1e-6)
    by_hand = functional.kl_div(
        functional.log_softmax(logits, -1), functional.softmax(logits.flip(0), -1), reduction="batchmean"
    )
    assert distance(logits, logits.flip(0), 1.0).item() == pytest.approx(by_hand.item(), rel=1e-5)


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
