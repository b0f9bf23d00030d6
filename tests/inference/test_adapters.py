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
