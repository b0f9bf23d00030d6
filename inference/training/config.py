"""Every number of a training run, each with its range; all mistakes are reported at once."""

import json
import math
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from inference.training.errors import BadConfig

DEVICES = ("auto", "cpu", "cuda")


def _number(default: float, low: float, high: float) -> Any:
    return field(default=default, metadata={"range": (low, high)})


def _choice(default: str, choices: tuple[str, ...]) -> Any:
    return field(default=default, metadata={"choices": choices})


class _Config:
    """What both configurations share: they are read from `config.json` and checked as a whole."""

    def __post_init__(self) -> None:
        _refuse(_mistakes(type(self), vars(self)))

    @classmethod
    def read(cls, path: Path) -> Self:
        try:
            values = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise BadConfig(f"{path.name} cannot be read: {error}") from error
        return cls.parse(values)

    @classmethod
    def parse(cls, values: object) -> Self:
        if not isinstance(values, dict):
            raise BadConfig("the configuration must be a JSON object")
        _refuse(_mistakes(cls, values))
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class SftConfig(_Config):
    """Supervised fine-tuning of a LoRA.

    The defaults fit 10-300 samples and the model that ships, on a CPU. A base of half a billion
    parameters or more wants a `learning_rate` of about 2e-4.

    One optimiser step sees `batch_size * gradient_accumulation` samples. Samples of more than
    `max_tokens` tokens, prompt included, are left out: a cut text would teach to stop half-way.
    """

    model_dir: str
    base_sha256: str
    seed: int = _number(7, 0, 2**32 - 1)
    rank: int = _number(16, 1, 256)
    alpha: float = _number(32, 1, 1024)
    dropout: float = _number(0.05, 0, 0.9)
    learning_rate: float = _number(3e-3, 1e-7, 1.0)
    warmup_ratio: float = _number(0.1, 0, 0.5)
    weight_decay: float = _number(0.0, 0, 1.0)
    max_grad_norm: float = _number(1.0, 1e-3, 1000)
    num_epochs: int = _number(4, 1, 100)
    batch_size: int = _number(2, 1, 256)
    gradient_accumulation: int = _number(1, 1, 256)
    max_tokens: int = _number(1024, 16, 32768)
    checkpoint_steps: int = _number(20, 1, 100_000)
    num_threads: int = _number(1, 1, 256)
    device: str = _choice("auto", DEVICES)

    def identity(self) -> dict[str, Any]:
        """The settings that decide which weights come out; where and how fast is left out."""
        place = {"model_dir", "checkpoint_steps", "num_threads", "device"}
        return {name: value for name, value in asdict(self).items() if name not in place}


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(_Config):
    """Held-out loss of the base model, or of the base with one adapter."""

    model_dir: str
    adapter_dir: str | None = None
    batch_size: int = _number(8, 1, 256)
    max_tokens: int = _number(1024, 16, 32768)
    num_threads: int = _number(1, 1, 256)
    device: str = _choice("auto", DEVICES)


def _refuse(mistakes: list[str]) -> None:
    if mistakes:
        raise BadConfig("; ".join(mistakes))


def _mistakes(config: type[_Config], values: dict[str, Any]) -> list[str]:
    options = {option.name: option for option in fields(config)}  # type: ignore[arg-type]
    found = [f"{name} is not an option" for name in sorted(values.keys() - options.keys())]
    for name, option in options.items():
        if name in values:
            found += _value_mistakes(option, values[name])
        elif option.default is MISSING:
            found.append(f"{name} is missing")
    return found


def _value_mistakes(option: Field[Any], value: object) -> list[str]:
    if choices := option.metadata.get("choices"):
        wish = f"{option.name} must be one of {', '.join(choices)}, not {value!r}"
        return [] if value in choices else [wish]
    if limits := option.metadata.get("range"):
        return _number_mistakes(option, value, *limits)
    is_text = isinstance(value, str) and bool(value)
    is_optional_none = value is None and option.default is None
    return [] if is_text or is_optional_none else [f"{option.name} must be a text, not {value!r}"]


def _number_mistakes(option: Field[Any], value: object, low: float, high: float) -> list[str]:
    kinds = int if option.type is int else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and low <= value <= high:  # type: ignore[arg-type, operator]
        return []
    kind = "whole number" if option.type is int else "number"
    return [f"{option.name} must be a {kind} from {low} to {high}, not {value!r}"]
