import json
from pathlib import Path

import pytest

from inference import AdapterUnavailable, adapters

BASE = "b" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / adapters.CONFIG_NAME).write_text("{}")
    (tmp_path / adapters.WEIGHTS_NAME).write_bytes(b"weights")
    (tmp_path / adapters.GGUF_NAME).write_bytes(b"GGUF weights")
    return tmp_path


def test_a_sealed_folder_passes_its_check(folder: Path) -> None:
    sealed = adapters.seal(folder, base_sha256=BASE)
    assert adapters.check(folder, sha256=sealed.sha256, base_sha256=BASE) == sealed
    assert [entry.size for entry in sealed.files] == [2, 7, 12]
    assert {path.name for path in folder.iterdir()} == {entry.name for entry in sealed.files} | {
        "MANIFEST.json"
    }


def test_the_name_stands_for_the_bytes(folder: Path) -> None:
    first = adapters.seal(folder, base_sha256=BASE).sha256
    assert adapters.seal(folder, base_sha256=BASE).sha256 == first
    (folder / adapters.WEIGHTS_NAME).write_bytes(b"WEIGHTS")
    assert adapters.seal(folder, base_sha256=BASE).sha256 != first


@pytest.mark.parametrize("name", [adapters.CONFIG_NAME, adapters.WEIGHTS_NAME, adapters.GGUF_NAME])
def test_a_flipped_bit_is_found(folder: Path, name: str) -> None:
    adapters.seal(folder, base_sha256=BASE)
    content = bytearray((folder / name).read_bytes())
    content[0] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(AdapterUnavailable, match=name):
        adapters.check(folder)


def test_a_missing_file_is_found(folder: Path) -> None:
    adapters.seal(folder, base_sha256=BASE)
    (folder / adapters.GGUF_NAME).unlink()
    with pytest.raises(AdapterUnavailable, match=r"adapter\.gguf cannot be read"):
        adapters.check(folder)


def test_nothing_is_sealed_while_a_file_is_missing(folder: Path) -> None:
    (folder / adapters.WEIGHTS_NAME).unlink()
    with pytest.raises(AdapterUnavailable):
        adapters.seal(folder, base_sha256=BASE)
    assert not (folder / adapters.MANIFEST_NAME).exists()


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "PREFIX_TUNING"},
        {"peft_type": "PROMPT_TUNING"},
        {"peft_type": "P_TUNING"},
        {"peft_type": "LORA", "use_dora": True},
    ],
    ids=str,
)
def test_what_gguf_cannot_carry_is_sealed_without_it(folder: Path, config: dict[str, object]) -> None:
    (folder / adapters.CONFIG_NAME).write_text(json.dumps(config))
    (folder / adapters.GGUF_NAME).unlink()
    sealed = adapters.seal(folder, base_sha256=BASE)
    assert [entry.name for entry in sealed.files] == [adapters.CONFIG_NAME, adapters.WEIGHTS_NAME]
    assert adapters.check(folder, sha256=sealed.sha256, base_sha256=BASE) == sealed


def test_a_plain_lora_needs_its_gguf(folder: Path) -> None:
    (folder / adapters.GGUF_NAME).unlink()
    for config in ("{}", '{"peft_type": "LORA", "use_dora": false}'):
        (folder / adapters.CONFIG_NAME).write_text(config)
        with pytest.raises(AdapterUnavailable, match=r"adapter\.gguf cannot be read"):
            adapters.seal(folder, base_sha256=BASE)


def test_a_kind_that_nothing_runs_is_not_sealed(folder: Path) -> None:
    (folder / adapters.GGUF_NAME).unlink()
    (folder / adapters.CONFIG_NAME).write_text('{"peft_type": "IA3"}')
    with pytest.raises(AdapterUnavailable, match="adapters of the kind IA3 cannot be run"):
        adapters.seal(folder, base_sha256=BASE)


def test_a_manifest_of_old_keeps_its_name(folder: Path) -> None:
    """Sealed before there were other kinds than LoRA."""
    assert adapters.seal(folder, base_sha256=BASE).sha256 == (
        "9f58d4eb0bcac8bdebc4d88e8287825783df8dbea76a73f381361b0fdd218d96"
    )


@pytest.mark.parametrize(
    ("config", "number"),
    [
        ({}, 0),
        ({"peft_type": "LORA", "num_virtual_tokens": 9}, 0),
        ({"peft_type": "P_TUNING", "num_virtual_tokens": 9}, 9),
    ],
    ids=str,
)
def test_virtual_tokens_are_counted(config: dict[str, object], number: int) -> None:
    assert adapters.num_virtual_tokens(config) == number


@pytest.mark.parametrize("content", ["not json", "[]"])
def test_a_config_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / adapters.CONFIG_NAME).write_text(content)
    with pytest.raises(AdapterUnavailable, match=r"adapter_config\.json is no"):
        adapters.read_config(folder)


def test_another_adapter_or_another_base_is_refused(folder: Path) -> None:
    adapters.seal(folder, base_sha256=BASE)
    with pytest.raises(AdapterUnavailable, match="holds adapter"):
        adapters.check(folder, sha256="a" * 64)
    with pytest.raises(AdapterUnavailable, match="was trained on model"):
        adapters.check(folder, base_sha256="c" * 64)


@pytest.mark.parametrize(
    "manifest",
    [
        "not json",
        "[]",
        "{}",
        json.dumps({"format": 2, "base_sha256": BASE, "files": []}),
        json.dumps({"format": 1, "base_sha256": BASE, "files": []}),
        json.dumps(
            {"format": 1, "base_sha256": BASE, "files": [{"name": "../secret", "size": 1, "sha256": "x"}]}
        ),
    ],
)
def test_a_strange_manifest_is_refused(folder: Path, manifest: str) -> None:
    (folder / adapters.MANIFEST_NAME).write_text(manifest)
    with pytest.raises(AdapterUnavailable, match="not an adapter manifest"):
        adapters.check(folder)


def test_an_unsealed_folder_is_refused(folder: Path) -> None:
    with pytest.raises(AdapterUnavailable, match="is the adapter sealed"):
        adapters.check(folder)
