"""What a model needs, from its config or its header, and what the machine has."""

import io
from pathlib import Path

import pytest

from inference import ModelUnavailable, sizing
from inference.gguf_header import read_header
from inference.sources import read_json
from inference.tiny import MODEL_DIR
from tests.support.random_gguf import write_model

MIXTURE = {  # 8 experts of 7 B
    "model_type": "mixtral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
}
DENSE = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
}
GB = 10**9


@pytest.mark.parametrize(("config", "num_params"), [(MIXTURE, 46.70e9), (DENSE, 1.236e9)])
def test_parameters_are_counted_from_a_config(config: dict[str, object], num_params: float) -> None:
    assert sizing.shape_from_config(config).num_params == pytest.approx(num_params, rel=0.002)


def test_the_shipped_model_is_counted_as_its_file_says() -> None:
    folder = MODEL_DIR
    shape = sizing.shape_from_config(read_json(folder / "config.json"))

    stored = (folder / "model.safetensors").stat().st_size / 2  # bfloat16
    assert shape.num_params == pytest.approx(stored, rel=0.01)


def test_kv_cells_are_layers_heads_and_widths_of_16_bits_twice() -> None:
    shape = sizing.shape_from_config(DENSE)
    assert sizing.kv_bytes(shape, 8192) == 8192 * 16 * 8 * 64 * 2 * 2


def test_a_gguf_header_gives_the_same_as_its_tensors(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", width=128, num_layers=3)

    with path.open("rb") as file:
        header = read_header(file, name="model.gguf")
    shape = sizing.shape_from_gguf(
        header.metadata, num_params=header.num_params, vocab_size=header.vocab_size
    )

    assert header.speaks_chatml
    assert header.quantization == "Q8_0"
    assert shape.kv_values == 3 * 2 * 64 * 2
    assert (shape.family, shape.context_length, shape.num_heads) == ("llama", 1024, 2)
    assert path.stat().st_size == pytest.approx(sizing.weight_bytes(shape.num_params, "Q8_0"), rel=0.05)


def test_heads_may_differ_from_layer_to_layer() -> None:
    metadata = {
        "general.architecture": "odd",
        "odd.block_count": 3,
        "odd.embedding_length": 256,
        "odd.context_length": 4096,
        "odd.attention.head_count": [4, 4, 4],
        "odd.attention.head_count_kv": [4, 0, 2],
    }
    assert sizing.shape_from_gguf(metadata, num_params=1, vocab_size=1).kv_values == 6 * (64 + 64)


def test_a_damaged_header_is_one_sentence_wherever_it_ends(tmp_path: Path) -> None:
    content = write_model(tmp_path / "model.gguf").read_bytes()
    for size in [0, 3, 7, 20, 60, 300, 2000]:
        with pytest.raises(ModelUnavailable, match="not a GGUF file, or it is damaged"):
            read_header(io.BytesIO(content[:size]), name="model.gguf")
    with pytest.raises(ModelUnavailable, match="items"):
        read_header(io.BytesIO(content[:8] + b"\xff" * 64), name="model.gguf")


def test_what_fits_is_named_best_first() -> None:
    shape = sizing.shape_from_config(MIXTURE)
    assert sizing.fitting(shape, cells=8192, memory=128 * GB)[0] == "F16"
    assert sizing.fitting(shape, cells=8192, memory=32 * GB)[0] == "Q4_K_M"
    assert sizing.fitting(shape, cells=8192, memory=16 * GB) == []
    assert sizing.fitting(shape, cells=8192, memory=64 * GB, among=("Q4_0", "Q8_0")) == ["Q8_0", "Q4_0"]


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (9_758_784, "9.76 MB"), (58e9, "58 GB"), (2e15, "2e+03 TB")],
)
def test_sizes_for_people(count: float, shown: str) -> None:
    assert sizing.human(count) == shown


# --- the machine ---------------------------------------------------------------------------------


def machine(folder: Path, *, cgroup: str, files: dict[str, str]) -> sizing.Memory:
    """16 GB with 8 free, and the control groups of `files`."""
    (folder / "proc" / "self").mkdir(parents=True)
    (folder / "proc" / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\n")
    (folder / "proc" / "self" / "cgroup").write_text(cgroup)
    for name, content in files.items():
        (folder / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup" / name).write_text(content)
    return sizing.read_memory(folder / "proc", folder / "cgroup")


def test_without_a_limit_it_is_the_machines(tmp_path: Path) -> None:
    memory = machine(tmp_path, cgroup="0::/\n", files={})
    assert memory == sizing.Memory(total=16_384_000_000, available=8_192_000_000)


def test_the_tightest_limit_above_the_process_counts(tmp_path: Path) -> None:
    files = {
        "a/memory.max": "4000000000\n",
        "a/memory.current": "3000000000\n",
        "a/memory.stat": "anon 1\ninactive_file 500000000\n",
        "a/b/memory.max": "max\n",
        "a/b/memory.current": "1\n",
        "a/b/memory.stat": "anon 1\n",
    }
    memory = machine(tmp_path, cgroup="0::/a/b\n", files=files)
    assert memory == sizing.Memory(total=4_000_000_000, available=1_500_000_000)


def test_limits_of_the_old_control_groups_count_too(tmp_path: Path) -> None:
    files = {
        "memory/box/memory.limit_in_bytes": "2000000000\n",
        "memory/box/memory.usage_in_bytes": "500000000\n",
        "memory/box/memory.stat": "total_inactive_file 0\n",
    }
    memory = machine(tmp_path, cgroup="4:memory:/box\n0::/\n", files=files)
    assert memory == sizing.Memory(total=2_000_000_000, available=1_500_000_000)


def test_this_machine_has_some() -> None:
    memory = sizing.read_memory()
    assert 0 < memory.available <= memory.total


def test_lanes_take_a_quarter_of_the_memory_and_are_never_fewer_than_two() -> None:
    assert [sizing.lanes_within(memory, lane=100) for memory in (0, 1200, 2000, 1 << 40)] == [2, 3, 5, 8]
