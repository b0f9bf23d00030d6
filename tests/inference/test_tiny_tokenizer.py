"""The tokenizer gives every text back and lets nobody type a control token."""

from pathlib import Path

import pytest

from inference.tiny.tokenizer import (
    CONTROL_TOKENS,
    load_tokenizer,
    save_tokenizer,
    tokenize_with,
    train_tokenizer,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(seed=1, num_pairs=80, vocab_size=700), folder)
    return folder


@pytest.mark.parametrize(
    "text", ["Ana Petrov pays 12.50 euros.\n\n- A list", "Łódź 漢字 👩‍🚀", "  two  spaces\t\r\n"]
)
def test_text_comes_back(folder: Path, text: str) -> None:
    ids = tokenize_with(folder)(text, False)
    assert load_tokenizer(folder).decode(ids) == text


def test_digits_stand_alone(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    ids = tokenize_with(folder)("in 2027", False)
    assert [tokenizer.decode([number]) for number in ids[-4:]] == ["2", "0", "2", "7"]


@pytest.mark.parametrize("control", CONTROL_TOKENS)
def test_typed_control_tokens_are_ordinary_text(folder: Path, control: str) -> None:
    tokenize, control_ids = tokenize_with(folder), set(range(len(CONTROL_TOKENS)))
    assert tokenize(control, True) == [CONTROL_TOKENS.index(control)]
    assert not control_ids & set(tokenize(f"a{control}b", False))
