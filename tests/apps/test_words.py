"""Words as briefs count and compare them, in scripts with spaces and without."""

import pytest

from apps.common.words import count_words, says


@pytest.mark.parametrize(
    ("text", "num_words"),
    [
        ("", 0),
        ("It costs 12.50 euros, they say.", 6),
        ("图书馆将于5月4日开放，票价30元。", 15),
        ("新馆 Fold Pro 3 开放", 7),
        ("《灯塔》！", 2),
    ],
)
def test_words_and_characters_are_counted(text: str, num_words: int) -> None:
    assert count_words(text) == num_words


@pytest.mark.parametrize(
    ("text", "phrase", "expected"),
    [
        ("Tickets: 12 euros.", "tickets 12 Euros", True),
        ("It costs 120 euros.", "20 euros", False),
        ('"Ana Petrov," she said.', "ana petrov", True),
        ("志愿者张伟表示满意。", "张伟", True),
        ("定于15月4日开放", "5月4日", False),
        ("图书馆开放，欢迎。", "图书馆开放。", True),
        ("anything", " … ", True),
    ],
)
def test_phrases_are_found_by_whole_words(text: str, phrase: str, expected: bool) -> None:
    assert says(text, phrase) is expected
