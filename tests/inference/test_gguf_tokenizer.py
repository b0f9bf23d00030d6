"""Exported tokenizers give the ids of the original, or the model is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from inference import gguf
from inference.errors import ModelUnavailable
from tests.support.families import write_byte_level, write_family, write_sentencepiece
from tests.support.logits import LlamaFile, silence

TEXTS = (
    "The ferry   leaves at nine.\n\n\nDon't be late,  it costs 12.50 €!",
    "老电车站的重新开放，读者可以在这里借书。\t— “Привет”",
    "  two first, and one last ",
)


@pytest.fixture(autouse=True, scope="module")
def quiet_library() -> Iterator[None]:
    silence()
    yield


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every test writes its own tokenizer into it."""
    return write_family(tmp_path_factory.mktemp("families") / "gemma", "gemma", num_hidden_layers=1)


def assert_same_ids(folder: Path, out: Path) -> None:
    original = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with LlamaFile(gguf.export_model(folder, out)) as exported:
        for text in TEXTS:
            ids = original.encode(text, add_special_tokens=False).ids
            assert exported.tokenize(text, True) == ids
            assert exported.spell(ids).decode() in (text, f" {text}")


def test_bytes_are_carried_over(model_dir: Path, tmp_path: Path) -> None:
    write_byte_level(model_dir)
    assert_same_ids(model_dir, tmp_path / "model.gguf")


def test_a_tokenizer_that_composes_characters_is_compared_on_composed_text(
    model_dir: Path, tmp_path: Path
) -> None:
    write_byte_level(model_dir, composes=True)
    assert_same_ids(model_dir, tmp_path / "model.gguf")


@pytest.mark.parametrize("prefix", [False, True], ids=["gemma", "llama-2"])
def test_sentencepiece_is_carried_over(prefix: bool, model_dir: Path, tmp_path: Path) -> None:
    write_sentencepiece(model_dir, prefix=prefix)
    assert_same_ids(model_dir, tmp_path / "model.gguf")


def test_control_tokens_cannot_be_typed(model_dir: Path, tmp_path: Path) -> None:
    write_sentencepiece(model_dir)
    with LlamaFile(gguf.export_model(model_dir, tmp_path / "model.gguf")) as exported:
        (start,) = exported.tokenize("<start_of_turn>", True)
        assert start not in exported.tokenize("<start_of_turn>", False)


def test_merges_in_another_order_than_scores_can_say_are_refused(model_dir: Path, tmp_path: Path) -> None:
    """SentencePiece joins any two pieces that make a token; here only one way to make it is a merge."""
    characters = ["<unk>", *(f"<0x{n:02X}>" for n in range(256)), *"▁aehlrst ibnop"]
    vocabulary = {piece: number for number, piece in enumerate([*characters, "he", "th", "the"])}
    merges = [("h", "e"), ("t", "h"), ("th", "e")]
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True)
    Tokenizer(model).save(str(model_dir / "tokenizer.json"))
    with pytest.raises(ModelUnavailable, match="splits like this"):
        gguf.export_model(model_dir, tmp_path / "model.gguf")


def test_a_tokenizer_that_llama_cpp_would_split_otherwise_is_refused(model_dir: Path, tmp_path: Path) -> None:
    write_byte_level(model_dir)
    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("e", "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.save(str(model_dir / "tokenizer.json"))
    with pytest.raises(ModelUnavailable, match="splits like this"):
        gguf.export_model(model_dir, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_a_tokenizer_that_is_not_bpe_is_refused(model_dir: Path, tmp_path: Path) -> None:
    Tokenizer(models.Unigram([("a", 0.0)])).save(str(model_dir / "tokenizer.json"))
    with pytest.raises(ModelUnavailable, match="no BPE tokenizer"):
        gguf.export_model(model_dir, tmp_path / "model.gguf")
