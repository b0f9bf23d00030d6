"""How much memory a model takes and how much this machine has. Arithmetic: nothing is loaded.

Weights are what their file holds, KV cells are 16-bit floats. The engine computes in batches of
512 tokens, which sets what it needs beside them. A GPU's own memory is not counted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Mean over llama.cpp's mixtures for large models, best first. Small ones come out a little larger,
# because a greater part of them is the vocabulary, which keeps more bits.
BITS_PER_WEIGHT = {
    "F32": 32.0,
    "F16": 16.0,
    "BF16": 16.0,
    "Q8_0": 8.5,
    "Q6_K": 6.57,
    "Q5_K_M": 5.7,
    "Q4_K_M": 4.85,
    "Q4_0": 4.6,
    "Q3_K_M": 3.95,
    "Q2_K": 3.2,
}
_KV_VALUE_BYTES = 2
_BATCH_TOKENS = 512
_PROCESS_BYTES = 80 << 20
_MIN_LANES, _MAX_LANES = 2, 8
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What memory depends on. `kv_values` are the numbers that one cell keeps, over all layers."""

    family: str
    num_params: int
    kv_values: int
    num_heads: int
    vocab_size: int
    context_length: int


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes to write with a model; `kv` again for each adapter that writes at the same time."""

    weights: int
    kv: int
    working: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.working


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that this process may have, of a container's limit where there is one."""

    total: int
    available: int


def shape_from_config(config: Mapping[str, Any]) -> Shape:
    """From a Hugging Face config.json of the Llama kind, mixtures of experts too."""
    num_layers, num_heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
    num_kv_heads = int(config.get("num_key_value_heads") or num_heads)
    head_dim = int(config.get("head_dim") or config["hidden_size"] // num_heads)
    return Shape(
        family=str(config.get("model_type", "unknown")),
        num_params=_count_params(config, q_width=num_heads * head_dim, kv_width=num_kv_heads * head_dim),
        kv_values=num_layers * num_kv_heads * head_dim * 2,
        num_heads=num_heads,
        vocab_size=int(config["vocab_size"]),
        context_length=int(config["max_position_embeddings"]),
    )


def _count_params(config: Mapping[str, Any], *, q_width: int, kv_width: int) -> int:
    """Matrices only: norms and biases are less than a thousandth."""
    width, num_experts = int(config["hidden_size"]), _num_experts(config)
    expert_width = int(config.get("moe_intermediate_size") or config["intermediate_size"])
    attention = 2 * width * (q_width + kv_width)
    feed_forward = 3 * width * (expert_width if num_experts else int(config["intermediate_size"]))
    layer = attention + feed_forward * max(1, num_experts) + width * num_experts
    embeddings = int(config["vocab_size"]) * width * (1 if config.get("tie_word_embeddings") else 2)
    return int(config["num_hidden_layers"]) * layer + embeddings


def _num_experts(config: Mapping[str, Any]) -> int:
    return int(config.get("num_local_experts") or config.get("num_experts") or 0)


def shape_from_gguf(metadata: Mapping[str, Any], *, num_params: int, vocab_size: int) -> Shape:
    """From the header of a GGUF file; heads may differ from layer to layer. Raises KeyError."""
    family = metadata["general.architecture"]

    def value(key: str, default: Any = None) -> Any:
        return metadata[f"{family}.{key}"] if default is None else metadata.get(f"{family}.{key}", default)

    num_layers, heads = int(value("block_count")), value("attention.head_count")
    num_heads = max(heads) if isinstance(heads, list) else int(heads)
    kv_heads = value("attention.head_count_kv", num_heads)
    num_kv_heads = sum(kv_heads) if isinstance(kv_heads, list) else num_layers * int(kv_heads)
    head_dim = int(value("embedding_length")) // max(1, num_heads)
    key, key_value = value("attention.key_length", head_dim), value("attention.value_length", head_dim)
    return Shape(
        family=str(family),
        num_params=num_params,
        kv_values=num_kv_heads * (int(key) + int(key_value)),
        num_heads=num_heads,
        vocab_size=vocab_size,
        context_length=int(value("context_length")),
    )


def weight_bytes(num_params: int, quantization: str) -> int:
    return int(num_params * BITS_PER_WEIGHT[quantization] / 8)


def kv_bytes(shape: Shape, cells: int) -> int:
    return cells * shape.kv_values * _KV_VALUE_BYTES


def need(shape: Shape, *, weights: int, cells: int) -> Need:
    """`weights` in bytes, `cells` are the tokens of GALLEY_CONTEXT."""
    widest = max(shape.vocab_size, shape.num_heads * cells)  # logits, or attention scores of one layer
    working = _PROCESS_BYTES + _BATCH_TOKENS * widest * 4
    return Need(weights=weights, kv=kv_bytes(shape, cells), working=working)


def fitting(shape: Shape, *, cells: int, memory: int, among: Iterable[str] = BITS_PER_WEIGHT) -> list[str]:
    """The quantisations with which the model can be opened in `memory` bytes, best first."""
    sizes = {name: weight_bytes(shape.num_params, name) for name in BITS_PER_WEIGHT if name in set(among)}
    return [name for name, size in sizes.items() if need(shape, weights=size, cells=cells).total <= memory]


def lanes_within(memory: int, *, lane: int) -> int:
    """How many adapters may write at the same time with `lane` bytes each, in a quarter of `memory`."""
    return max(_MIN_LANES, min(_MAX_LANES, memory // 4 // max(1, lane)))


def training_bytes(shape: Shape) -> int:
    """The recipe holds the base in 32 bits; half as much again is for activations and the adapter."""
    return shape.num_params * 6 + _PROCESS_BYTES


def human(num_bytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


# --- this machine --------------------------------------------------------------------------------


def read_memory(proc: Path = Path("/proc"), cgroups: Path = _CGROUPS) -> Memory:
    """The tightest of the machine and the control groups that this process is in."""
    fields = dict(line.split(":") for line in (proc / "meminfo").read_text().splitlines())
    total, available = (int(fields[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
    for limit, used in _limits(proc, cgroups):
        total, available = min(total, limit), min(available, max(0, limit - used))
    return Memory(total=total, available=available)


def _limits(proc: Path, cgroups: Path) -> Iterable[tuple[int, int]]:
    """Limit and use of every control group above this process that has a limit; versions 2 and 1."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers in ("", "memory"):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if not controllers:
                names = ("memory.max", "memory.current", "inactive_file")
            top = cgroups / controllers
            inside = top / path.strip("/")
            for folder in (inside, *inside.parents):
                if folder.is_relative_to(top):
                    yield from _limit(folder, *names)


def _limit(folder: Path, limit: str, used: str, cached: str) -> Iterable[tuple[int, int]]:
    try:
        most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return
    if most != "max":
        # Pages of files that nobody reads just now are given back before anybody is refused memory.
        yield int(most), now - int(stat.get(cached, 0))
