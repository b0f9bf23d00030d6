"""What the sections measure on."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bench.bursts import Prompts
from bench.models import LLAMA_93M, QWEN_05B, cached_adapter, cached_model
from inference import AdapterRef
from inference.tiny import GGUF_PATH

NUM_ADAPTERS = 5


@dataclass(frozen=True)
class Model:
    """`sizes` are numbers of texts at once and `num_tokens` the length of each, where speed is measured."""

    name: str
    path: Path
    sizes: tuple[int, ...] = (1, 8, 16, 32)
    num_tokens: int = 64

    @cached_property
    def prompts(self) -> Prompts:
        return Prompts(self.path)


@dataclass(frozen=True)
class Bench:
    """Models are made when a section asks for them; `scratch` is empty and goes away."""

    scratch: Path

    @cached_property
    def small(self) -> Model:
        """93 M parameters in Q4_0, random."""
        return Model("93M", cached_model(LLAMA_93M))

    @cached_property
    def large(self) -> Model:
        """The shape of a Qwen2 of 0.5 B with 152 thousand tokens, in Q4_0, random."""
        return Model("0.5B", cached_model(QWEN_05B), sizes=(1, 8, 16), num_tokens=24)

    @cached_property
    def shipped(self) -> Model:
        return Model("shipped", GGUF_PATH)

    @cached_property
    def adapters(self) -> list[AdapterRef]:
        """For the small model."""
        return [cached_adapter(self.small.path, seed=seed) for seed in range(NUM_ADAPTERS)]
