"""The diff that reviewers read."""

from hypothesis import given
from hypothesis import strategies as st

from apps.drafts.diff import Piece, diff, num_hunks

TEXTS = st.text(alphabet="ab é\u0301\n\t.市议会\ud55c", max_size=60)


def kinds(pieces: list[Piece]) -> list[tuple[str, str]]:
    return [(piece.kind, piece.text) for piece in pieces]


def test_a_replaced_word_is_one_change() -> None:
    pieces = diff("The bridge closes on Monday.", "The bridge opens on Monday.")
    assert kinds(pieces) == [
        ("equal", "The bridge "),
        ("delete", "closes"),
        ("insert", "opens"),
        ("equal", " "),
        ("equal", "on Monday."),
    ]
    assert num_hunks(pieces) == 1


def test_words_outvote_the_spaces_between_them() -> None:
    old = "The city pays for it.\n\nIt is a pilot that runs for one year."
    changed = [piece for piece in diff(old, "It is a pilot for one year.") if piece.kind != "equal"]
    assert kinds(changed) == [("delete", "The city pays for it.\n\n"), ("delete", "that runs ")]


def test_chinese_is_compared_character_by_character() -> None:
    changed = [piece for piece in diff("市议会周二投票。", "市议会周三投票。") if piece.kind != "equal"]
    assert kinds(changed) == [("delete", "二"), ("insert", "三")]


def test_a_changed_line_break_is_a_change() -> None:
    changed = [piece for piece in diff("One.\nTwo.", "One.\n\nTwo.") if piece.kind != "equal"]
    assert kinds(changed) == [("insert", "\n")]


@given(TEXTS, TEXTS)
def test_both_texts_can_be_read_out_of_it(old: str, new: str) -> None:
    pieces = diff(old, new)
    assert "".join(piece.text for piece in pieces if piece.kind != "insert") == old
    assert "".join(piece.text for piece in pieces if piece.kind != "delete") == new


@given(TEXTS, TEXTS)
def test_hunks_are_counted_in_reading_order_and_only_where_something_changed(old: str, new: str) -> None:
    pieces = diff(old, new)
    numbers = [piece.hunk for piece in pieces if piece.kind != "equal"]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(1, num_hunks(pieces) + 1))
    assert (num_hunks(pieces) == 0) == (old == new)
    assert all(piece.hunk == 0 for piece in pieces if piece.kind == "equal")
