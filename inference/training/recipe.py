"""Supervised fine-tuning of a LoRA on approved texts, in five verbs: load, setup, train, save, clean up.

An explicit loop rather than transformers' Trainer: that one writes checkpoints in place and
resumes from the highest number even if files are missing, to a silently different model.
"""

import fcntl
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import torch
from peft import PeftModel

from inference import adapters, gguf
from inference.training import checkpoints
from inference.training.config import SftConfig
from inference.training.data import Step, fingerprint, plan_steps, read_records, tokenise
from inference.training.errors import Diverged, NoSamples, RunBusy, RunChanged, Stopped
from inference.training.evaluation import measure
from inference.training.model import (
    adapter_files,
    add_lora,
    choose_device,
    collate,
    completion_losses,
    load_base,
    load_tokenize,
)
from inference.training.state import capture, restore

logger = logging.getLogger(__name__)

_AGAINST_DIVERGENCE = "lower learning_rate, or look for a damaged base model."
_LIBRARIES = ("torch", "transformers", "peft", "safetensors")


class Emit(Protocol):
    """Told of everything that a person who watches the run may want to see."""

    def __call__(self, event: str, **fields: object) -> None: ...


def run_sft(folder: Path, *, emit: Emit, should_stop: Callable[[], bool] = lambda: False) -> None:
    """Train what the run folder describes, from its newest sealed checkpoint if it has one.

    Raises an EngineError if the run fails and Stopped at the first step boundary after
    `should_stop` answers yes. Killed at any moment and called again, it gives the same weights.
    """
    started = time.monotonic()
    with _only_run_in(folder):
        recipe = LoraSft(folder, emit=emit, should_stop=should_stop)
        try:
            recipe.load()
            recipe.setup()
            recipe.train()
            recipe.save()
        finally:
            recipe.clean_up()
    emit("done", seconds=round(time.monotonic() - started, 2))


class LoraSft:
    """One run. State is the LoRA, its optimiser, the random generators and the number of steps done."""

    def __init__(self, folder: Path, *, emit: Emit, should_stop: Callable[[], bool]) -> None:
        self.folder = folder
        self.emit = emit
        self.should_stop = should_stop
        self.step = 0
        self.base_loss: float | None = None
        self.sealed_step: int | None = None

    # load

    def load(self) -> None:
        """Read settings, records and tokenizer, then the base model: cheap mistakes show first."""
        self.config = SftConfig.read(self.folder / "config.json")
        train_records = read_records(self.folder / "train.jsonl")
        heldout_records = read_records(self.folder / "heldout.jsonl")
        tokenize = load_tokenize(self.config.model_dir)
        self.samples = tokenise(train_records, tokenize, max_tokens=self.config.max_tokens)
        self.heldout = tokenise(heldout_records, tokenize, max_tokens=self.config.max_tokens)
        self.num_skipped = len(train_records) - len(self.samples)
        if not self.samples:
            raise NoSamples(
                f"None of {len(train_records)} samples can be used: approve more drafts,"
                f" or raise max_tokens above {self.config.max_tokens}."
            )
        self.device = choose_device(self.config.device)
        _make_deterministic(self.config, self.device)
        self.base = load_base(self.config.model_dir, self.device)

    # setup

    def setup(self) -> None:
        """Put a fresh LoRA on the base, lay out every step, take up the newest sealed checkpoint."""
        torch.manual_seed(self.config.seed)
        self.model: PeftModel = add_lora(self.base, self.config)
        self.model.train()
        self.trainable = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.trainable.values(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        self.plan: list[Step] = plan_steps(
            self.samples,
            num_epochs=self.config.num_epochs,
            batch_size=self.config.batch_size,
            gradient_accumulation=self.config.gradient_accumulation,
            seed=self.config.seed,
        )
        self.fingerprint = fingerprint(self.config.identity(), self.samples, self.heldout)
        checkpoint = checkpoints.newest_sealed(self._checkpoints)
        if checkpoint is not None:
            self._resume(checkpoint)
        self.emit(
            "setup",
            num_steps=len(self.plan),
            num_trainable=sum(p.numel() for p in self.trainable.values()),
            num_samples=len(self.samples),
            num_skipped=self.num_skipped,
            num_heldout=len(self.heldout),
            device=str(self.device),
            resumed_from=self.sealed_step,
        )

    def _resume(self, checkpoint: checkpoints.Checkpoint) -> None:
        state = json.loads(checkpoint.files["state.json"])
        if state["fingerprint"] != self.fingerprint:
            raise RunChanged(
                f"Samples or settings changed since checkpoint {checkpoint.step}: start a new run instead."
            )
        if state["versions"] != _versions():
            logger.warning("resumed with other versions: %s then, %s now", state["versions"], _versions())
        restore(checkpoint.files, self.trainable, self.optimizer, self.device)
        self.step = self.sealed_step = checkpoint.step
        self.base_loss = state["base_loss"]

    # train

    def train(self) -> None:
        """Held-out loss of the base, every step that is left, held-out loss of the result."""
        if self.step == 0:
            self.base_loss = self._held_out_loss()
        self._emit_eval(0, self.base_loss)
        while self.step < len(self.plan):
            self._stop_if_asked()
            self._one_step(self.plan[self.step])
            if self.step % self.config.checkpoint_steps == 0 or self.step == len(self.plan):
                self._seal()
        self._emit_eval(self.step, self._held_out_loss())

    def _one_step(self, micro_batches: Step) -> None:
        started = time.monotonic()
        learning_rate = learning_rate_at(self.step, len(self.plan), self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self._accumulate_gradients(micro_batches)
        grad_norm = float(torch.nn.utils.clip_grad_norm_(self.trainable.values(), self.config.max_grad_norm))
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise Diverged(
                f"At step {self.step + 1} the loss is {loss} and the gradient norm {grad_norm}:"
                f" {_AGAINST_DIVERGENCE}"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        num_tokens = sum(example.num_tokens for batch in micro_batches for example in batch)
        self.emit(
            "step",
            step=self.step,
            num_steps=len(self.plan),
            loss=round(loss, 6),
            learning_rate=learning_rate,
            grad_norm=round(grad_norm, 6),
            tokens_per_second=round(num_tokens / (time.monotonic() - started)),
        )

    def _accumulate_gradients(self, micro_batches: Step) -> float:
        """Weighted mean loss per completion token of the whole step, so that every token counts alike."""
        total = sum(e.weight * len(e.completion) for batch in micro_batches for e in batch)
        loss = 0.0
        for examples in micro_batches:
            weights = torch.tensor([example.weight for example in examples], device=self.device)
            share = (completion_losses(self.model, collate(examples, self.device)) * weights).sum() / total
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.item()
        return loss

    def _held_out_loss(self) -> float | None:
        if not self.heldout:
            return None
        size = self.config.batch_size
        loss = measure(self.model, self.heldout, batch_size=size, before_batch=self._stop_if_asked).loss
        if not math.isfinite(loss):
            raise Diverged(f"After step {self.step} the held-out loss is {loss}: {_AGAINST_DIVERGENCE}")
        return loss

    def _emit_eval(self, step: int, loss: float | None) -> None:
        if loss is not None:
            self.emit("eval", step=step, loss=round(loss, 6))

    def _stop_if_asked(self) -> None:
        if self.should_stop():
            if self.step and self.sealed_step != self.step:
                self._seal()
            raise Stopped(self.step)

    # save

    def save(self) -> None:
        """Write the adapter in both forms beside each other, seal it, then put it in its place."""
        files = adapter_files(self.model)
        checkpoints.require_space(self.folder, 2 * sum(map(len, files.values())) + checkpoints.SPARE_BYTES)
        with checkpoints.full_disk_is_no_space():
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging.mkdir()
            for name, content in files.items():
                checkpoints.write_durably(self._staging / name, content)
            gguf.export_lora(self._staging, Path(self.config.model_dir), self._staging / "adapter.gguf")
            adapters.seal(self._staging, base_sha256=self.config.base_sha256)
            checkpoints.rename_durably(self._staging, self.folder / "adapter")
        self.emit("saved", path=str(self.folder / "adapter"))

    # clean up

    def clean_up(self) -> None:
        """Leave no half-written folder; sealed checkpoints stay, so that the run can be taken up again."""
        shutil.rmtree(self._staging, ignore_errors=True)
        shutil.rmtree(self._checkpoints / checkpoints.STAGING, ignore_errors=True)

    # checkpoints

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def _staging(self) -> Path:
        return self.folder / ".adapter"

    def _seal(self) -> None:
        state = {
            "step": self.step,
            "base_loss": self.base_loss,
            "fingerprint": self.fingerprint,
            "versions": _versions(),
        }
        files = capture(self.trainable, self.optimizer, self.device)
        files["state.json"] = json.dumps(state, indent=1).encode()
        checkpoints.seal(self._checkpoints, self.step, files)
        self.sealed_step = self.step
        self.emit("checkpoint", step=self.step)


def learning_rate_at(step: int, num_steps: int, config: SftConfig) -> float:
    """Linear warm-up, then half a cosine to zero. `step` counts from 0."""
    num_warmup = math.ceil(config.warmup_ratio * num_steps)
    if step < num_warmup:
        return config.learning_rate * (step + 1) / num_warmup
    progress = (step - num_warmup) / max(1, num_steps - num_warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def _make_deterministic(config: SftConfig, device: torch.device) -> None:
    torch.set_num_threads(config.num_threads)
    torch.use_deterministic_algorithms(True)
    if device.type == "cuda":
        # cuBLAS sums in a fixed order only with a workspace of a fixed size; read at its first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _versions() -> dict[str, str]:
    return {library: version(library) for library in _LIBRARIES}


@contextmanager
def _only_run_in(folder: Path) -> Iterator[None]:
    """The kernel drops the lock when its holder dies, so no stale lock survives a kill."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunBusy(f"Another process trains in {folder}: wait for it or stop it first.") from None
        yield
