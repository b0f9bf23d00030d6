"""Held-out loss: how surprised a model is, per token, by approved texts that it never saw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from inference.training.config import EvaluateConfig
from inference.training.data import Example, read_records, tokenise
from inference.training.errors import NoSamples, Stopped
from inference.training.model import (
    choose_device,
    collate,
    completion_losses,
    load_base,
    load_lora,
    load_tokenize,
)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """`loss` is the mean over all completion tokens, in nats; `per_sample` the mean of each example."""

    loss: float
    num_tokens: int
    per_sample: dict[str, float]


def measure(
    model: torch.nn.Module,
    examples: Sequence[Example],
    *,
    batch_size: int,
    before_batch: Callable[[], None] = lambda: None,
) -> HeldOut:
    """Losses without dropout. The model's mode is put back; no random number is drawn."""
    device = next(model.parameters()).device
    by_length = sorted(examples, key=lambda example: (example.num_tokens, example.id))
    was_training = model.training
    model.eval()
    sums: dict[str, float] = {}
    try:
        with torch.no_grad():
            for start in range(0, len(by_length), batch_size):
                before_batch()
                chosen = by_length[start : start + batch_size]
                losses = completion_losses(model, collate(chosen, device))
                sums |= zip((example.id for example in chosen), losses.tolist(), strict=True)
    finally:
        model.train(was_training)
    lengths = {example.id: len(example.completion) for example in examples}
    num_tokens = sum(lengths.values())
    return HeldOut(
        loss=sum(sums.values()) / num_tokens,
        num_tokens=num_tokens,
        per_sample={id: sums[id] / lengths[id] for id in sorted(sums)},
    )


def evaluate(folder: Path, *, should_stop: Callable[[], bool] = lambda: False) -> HeldOut:
    """Measure `heldout.jsonl` with the model, and the adapter if any, that `config.json` names."""

    def stop_if_asked() -> None:
        if should_stop():
            raise Stopped(0)

    config = EvaluateConfig.read(folder / "config.json")
    torch.set_num_threads(config.num_threads)
    records = read_records(folder / "heldout.jsonl")
    examples = tokenise(records, load_tokenize(config.model_dir), max_tokens=config.max_tokens)
    if not examples:
        raise NoSamples("heldout.jsonl has no text that fits: nothing can be measured.")
    base = load_base(config.model_dir, choose_device(config.device))
    model: torch.nn.Module = base
    if config.adapter_dir is not None:
        model = load_lora(base, Path(config.adapter_dir))
    return measure(model, examples, batch_size=config.batch_size, before_batch=stop_if_asked)
