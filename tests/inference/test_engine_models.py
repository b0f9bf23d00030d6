from hashlib import sha256
from pathlib import Path

import pytest

from inference import ModelUnavailable
from inference.models import resolve


def write(path: Path, content: bytes = b"GGUF weights") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_gguf_is_named_by_its_bytes(tmp_path: Path) -> None:
    model = resolve(str(write(tmp_path / "tiny.gguf")), tmp_path)
    assert (model.kind, model.name, model.path) == ("gguf", "tiny", tmp_path / "tiny.gguf")
    assert model.sha256 == sha256(b"GGUF weights").hexdigest()


def test_a_hugging_face_folder_uses_the_gguf_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "model" / "config.json", b"{}")
    beside = write(tmp_path / "model" / "tiny.gguf")
    assert resolve(str(tmp_path / "model"), tmp_path).path == beside


def test_an_address_and_the_fake_are_told_by_their_prefix(tmp_path: Path) -> None:
    assert resolve("https://models.example/v1", tmp_path).kind == "openai"
    assert resolve("fake:?num_tokens=3", tmp_path).kind == "fake"


@pytest.mark.parametrize(
    ("files", "model", "complaint"),
    [
        ({}, "", "no model is configured"),
        ({}, "missing.gguf", "No such file"),
        ({"notes.gguf": b"dear diary"}, "notes.gguf", "is not a GGUF file"),
        ({"empty.gguf": b""}, "empty.gguf", "is not a GGUF file"),
        ({"photos/cat.jpg": b""}, "photos", "neither a GGUF file nor a config"),
        ({"two/a.gguf": b"", "two/b.gguf": b""}, "two", r"several GGUF files \(a.gguf, b.gguf\)"),
    ],
)
def test_what_is_no_model_is_one_clear_sentence(
    tmp_path: Path, files: dict[str, bytes], model: str, complaint: str
) -> None:
    for name, content in files.items():
        write(tmp_path / name, content)
    with pytest.raises(ModelUnavailable, match=complaint):
        resolve(str(tmp_path / model) if model else "", tmp_path)
