"""The school: it learns, it survives being stopped, killed and damaged, and it says why it failed."""

import hashlib
import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.errors import AdapterUnavailable, ModelUnavailable
from inference.training.config import SftConfig
from inference.training.data import read_records, tokenise
from inference.training.errors import (
    BadConfig,
    Diverged,
    NoSamples,
    NoSpace,
    RunBusy,
    RunChanged,
    Stopped,
)
from inference.training.evaluation import evaluate
from inference.training.model import collate, completion_losses, load_base, load_tokenize
from inference.training.recipe import LoraSft, learning_rate_at, run_sft
from tests.support.tiny_hf import harbour_notice, write_records, write_run, write_tiny_hf

SHORT: dict[str, Any] = {"rank": 4, "num_epochs": 3, "checkpoint_steps": 2}  # 6 steps of 4 samples
CPU = torch.device("cpu")


class PowerCut(Exception):
    """Ends a run where a kill would."""


class Events(list[dict[str, Any]]):
    """Keeps what a run tells, and cuts the power right after the step that it is told."""

    def __init__(self, *, cut_after: int | None = None) -> None:
        self.cut_after = cut_after

    def __call__(self, event: str, **fields: object) -> None:
        self.append({"event": event} | fields)
        if event == "step" and fields["step"] == self.cut_after:
            raise PowerCut

    def of(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self if entry["event"] == event]

    @property
    def setup(self) -> dict[str, Any]:
        [entry] = self.of("setup")
        return entry


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_hf(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def control(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = write_run(tmp_path_factory.mktemp("control") / "run", model, **SHORT)
    run_sft(folder, emit=Events())
    return folder


@pytest.fixture
def run(tmp_path: Path, model: Path) -> Path:
    return write_run(tmp_path / "run", model, **SHORT)


def train(folder: Path) -> Events:
    events = Events()
    run_sft(folder, emit=events)
    return events


def adapter_hashes(folder: Path) -> dict[str, str]:
    files = ("adapter_config.json", "adapter_model.safetensors", "adapter.gguf")
    return {name: hashlib.sha256((folder / "adapter" / name).read_bytes()).hexdigest() for name in files}


def change_config(folder: Path, **settings: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_it_learns_and_tells_every_step(tmp_path: Path, model: Path) -> None:
    run = write_run(tmp_path / "run", model, rank=8, num_epochs=25, learning_rate=0.01)
    events = train(run)
    assert events.setup["num_steps"] == 50
    assert (events.setup["num_samples"], events.setup["num_heldout"]) == (8, 2)
    assert events.setup["resumed_from"] is None
    assert [entry["step"] for entry in events.of("step")] == list(range(1, 51))
    before, after = events.of("eval")
    assert (before["step"], after["step"]) == (0, 50)
    assert after["loss"] < before["loss"] - 0.5
    assert [entry["event"] for entry in events[-2:]] == ["saved", "done"]
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == ["adapter", "checkpoints"]


def test_evaluation_of_the_saved_adapter_gives_the_loss_of_training(tmp_path: Path, control: Path) -> None:
    losses = {entry["step"]: entry["loss"] for entry in train(control).of("eval")}
    for adapter, loss in ((None, losses[0]), (control / "adapter", losses[6])):
        folder = tmp_path / f"with-{adapter is not None}"
        folder.mkdir()
        shutil.copy(control / "heldout.jsonl", folder)
        config = json.loads((control / "config.json").read_text())
        settings = {
            "model_dir": config["model_dir"],
            "adapter_dir": adapter and str(adapter),
            "device": "cpu",
        }
        (folder / "config.json").write_text(json.dumps(settings))
        result = evaluate(folder)
        assert result.loss == pytest.approx(loss, abs=1e-5)
        assert set(result.per_sample) == {"notice-90", "notice-91"}
    assert losses[6] < losses[0]


def test_loss_is_that_of_the_completion_whatever_the_batch(tmp_path: Path, model: Path) -> None:
    """Reference: transformers' own loss, one text at a time, labels only on the completion."""
    path = tmp_path / "train.jsonl"
    write_records(path, [harbour_notice(n) for n in range(5)] + [harbour_notice(9, completion="No.")])
    examples = tokenise(read_records(path), load_tokenize(str(model)), max_tokens=1024)
    base = load_base(str(model), CPU)
    with torch.no_grad():
        together = completion_losses(base, collate(examples, CPU))
        for example, loss in zip(examples, together, strict=True):
            ids = torch.tensor([example.prompt + example.completion])
            labels = torch.tensor([(-100,) * len(example.prompt) + example.completion])
            reference = base(input_ids=ids, labels=labels).loss * len(example.completion)
            torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-5)


def test_accumulated_micro_batches_equal_one_large_batch(tmp_path: Path, model: Path) -> None:
    settings = {**SHORT, "dropout": 0.0}
    large = train(write_run(tmp_path / "a", model, batch_size=4, **settings))
    small = train(write_run(tmp_path / "b", model, batch_size=1, gradient_accumulation=4, **settings))
    for one, other in zip(large.of("step"), small.of("step"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], abs=1e-3)


def test_weight_three_counts_as_three_samples(tmp_path: Path, model: Path) -> None:
    settings = {"dropout": 0.0, "num_epochs": 1, "rank": 4}
    weighted = write_run(tmp_path / "a", model, **settings)
    write_records(weighted / "train.jsonl", [harbour_notice(1, weight=3), harbour_notice(5)])
    repeated = write_run(tmp_path / "b", model, **settings)
    copies = [harbour_notice(1, id=f"copy-{n}") for n in range(3)]
    write_records(repeated / "train.jsonl", [*copies, harbour_notice(5)])
    [one], [other] = train(weighted).of("step"), train(repeated).of("step")
    assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
    assert one["grad_norm"] == pytest.approx(other["grad_norm"], abs=1e-4)


@pytest.mark.parametrize("step", range(1, 7))
def test_killed_after_any_step_and_run_again_gives_the_same_bytes(
    run: Path, control: Path, step: int
) -> None:
    with pytest.raises(PowerCut):
        run_sft(run, emit=Events(cut_after=step))
    assert not (run / "adapter").exists()
    last_sealed = (step - 1) // 2 * 2
    assert train(run).setup["resumed_from"] == (last_sealed or None)
    assert adapter_hashes(run) == adapter_hashes(control)


def test_stopped_at_a_step_boundary_and_run_again_gives_the_same_bytes(run: Path, control: Path) -> None:
    events = Events()
    with pytest.raises(Stopped) as stop:
        run_sft(run, emit=events, should_stop=lambda: len(events.of("step")) == 3)
    assert stop.value.step == 3
    assert events[-1] == {"event": "checkpoint", "step": 3}
    assert train(run).setup["resumed_from"] == 3
    assert adapter_hashes(run) == adapter_hashes(control)


def test_stopped_before_the_first_step_leaves_nothing_behind(run: Path) -> None:
    with pytest.raises(Stopped) as stop:
        run_sft(run, emit=Events(), should_stop=lambda: True)
    assert stop.value.step == 0
    assert not (run / "checkpoints").exists()


@pytest.mark.parametrize(("num_damaged", "resumed_from"), [(1, 2), (2, None)])
def test_damaged_checkpoints_are_passed_over(
    run: Path, control: Path, num_damaged: int, resumed_from: int | None
) -> None:
    with pytest.raises(PowerCut):
        run_sft(run, emit=Events(cut_after=5))
    for step in (4, 2)[:num_damaged]:
        (run / "checkpoints" / f"checkpoint-{step}" / "rng.safetensors").unlink()
    assert train(run).setup["resumed_from"] == resumed_from
    assert adapter_hashes(run) == adapter_hashes(control)


def test_a_finished_run_can_be_asked_again(control: Path) -> None:
    hashes = adapter_hashes(control)
    events = train(control)
    assert events.of("step") == []
    assert events[-1]["event"] == "done"
    assert adapter_hashes(control) == hashes


def test_changed_samples_do_not_go_on_from_an_old_checkpoint(run: Path) -> None:
    with pytest.raises(PowerCut):
        run_sft(run, emit=Events(cut_after=3))
    write_records(run / "train.jsonl", [harbour_notice(n) for n in range(9)])
    with pytest.raises(RunChanged, match="start a new run"):
        train(run)


def test_weights_that_are_no_number_end_the_run_before_anything_is_saved(run: Path, model: Path) -> None:
    damaged = run.parent / "damaged"
    shutil.copytree(model, damaged)
    weights = load_file(damaged / "model.safetensors")
    weights["model.norm.weight"].fill_(float("nan"))
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    change_config(run, model_dir=str(damaged))
    write_records(run / "heldout.jsonl", [])
    with pytest.raises(Diverged, match="At step 1 the loss is nan"):
        train(run)
    assert not (run / "adapter").exists()


def test_gradient_that_explodes_half_way(run: Path) -> None:
    events = Events()
    recipe = LoraSft(run, emit=events, should_stop=lambda: bool(events.of("step")))
    recipe.load()
    recipe.setup()
    with pytest.raises(Stopped):
        recipe.train()
    next(iter(recipe.trainable.values())).data.fill_(float("inf"))
    recipe.should_stop = lambda: False
    with pytest.raises(Diverged, match="At step 2"):
        recipe.train()


def test_no_samples(run: Path) -> None:
    write_records(run / "train.jsonl", [])
    with pytest.raises(NoSamples, match="approve more drafts"):
        train(run)


def test_no_sample_fits(run: Path) -> None:
    change_config(run, max_tokens=16)
    with pytest.raises(NoSamples, match="raise max_tokens"):
        train(run)


def test_without_held_out_texts_there_is_no_eval(run: Path) -> None:
    write_records(run / "heldout.jsonl", [])
    events = train(run)
    assert events.of("eval") == []
    assert events[-1]["event"] == "done"


def test_nothing_to_evaluate(tmp_path: Path, model: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_dir": str(model)}))
    (tmp_path / "heldout.jsonl").write_text("")
    with pytest.raises(NoSamples):
        evaluate(tmp_path)


def test_adapter_that_was_damaged_is_not_evaluated(tmp_path: Path, control: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(control / "adapter", adapter)
    with (adapter / "adapter_model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    shutil.copy(control / "heldout.jsonl", tmp_path)
    model_dir = json.loads((control / "config.json").read_text())["model_dir"]
    (tmp_path / "config.json").write_text(json.dumps({"model_dir": model_dir, "adapter_dir": str(adapter)}))
    with pytest.raises(AdapterUnavailable):
        evaluate(tmp_path)


@pytest.mark.parametrize("damage", ["absent", "no weights", "cut weights"])
def test_model_that_cannot_be_loaded(run: Path, model: Path, damage: str) -> None:
    broken = run.parent / "broken"
    if damage != "absent":
        shutil.copytree(model, broken)
        weights = broken / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[: 1000 if damage == "cut weights" else 0])
    change_config(run, model_dir=str(broken))
    with pytest.raises(ModelUnavailable, match="broken"):
        train(run)


def test_bad_config_is_said_before_the_data_is_read(run: Path) -> None:
    change_config(run, rank=0, num_epochs=0)
    (run / "train.jsonl").unlink()
    with pytest.raises(BadConfig, match=r"rank .*; num_epochs "):
        train(run)


def test_two_runs_in_one_folder(run: Path) -> None:
    events = Events()

    def start_another() -> bool:
        with pytest.raises(RunBusy):
            train(run)
        events("tried")
        return False

    run_sft(run, emit=events, should_stop=start_another)
    assert events.of("tried")
    assert events[-1]["event"] == "done"


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """A file that grows beyond this fails as it would on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("num_bytes", [4096, 40_000])
def test_full_disk_leaves_nothing_half_written_and_the_run_goes_on_later(
    run: Path, control: Path, num_bytes: int
) -> None:
    with largest_file(num_bytes), pytest.raises(NoSpace):
        train(run)
    assert list(run.rglob("*.safetensors")) == []
    train(run)
    assert adapter_hashes(run) == adapter_hashes(control)


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0.5), (1, 1.0), (2, 1.0), (11, 0.5), (19, pytest.approx(0.0076, abs=1e-3))]
)
def test_learning_rate_warms_up_and_falls_to_nothing(step: int, share: float) -> None:
    config = SftConfig.parse(
        {"model_dir": "m", "base_sha256": "s", "learning_rate": 1.0, "warmup_ratio": 0.1}
    )
    assert learning_rate_at(step, 20, config) == share
