"""Finds terms that a text must not say, while it is still being written."""

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

# Scripts without spaces are compared by the character, others by the whole word.
_UNSPACED = "\u2e80-\u2fff\u3005-\u3007\u3040-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_SPACED_END = re.compile(rf"[^\W{_UNSPACED}]\Z")


class Finding(NamedTuple):
    """`start` is where a term begins in the text; with `is_said` False it may only come to be one."""

    start: int
    is_said: bool


class Terms:
    """Terms in any case, with any marks between their words; "old" is not said by "older"."""

    def __init__(self, terms: Iterable[str] = ()) -> None:
        self._terms: list[list[str]] = []
        for term in terms:
            self.add(term)

    def add(self, term: str) -> None:
        if words := [word for _, word in _words(term)]:
            self._terms.append(words)

    def find(self, text: str, *, before: str = "", final: bool = False) -> Finding | None:
        """The first term that `text` says, or else the first place from which it may still say one.

        `before` is what stands before the text; unless `final`, its last word may grow.
        """
        if not self._terms:
            return None
        words = _words(text)
        is_open = not final and bool(_SPACED_END.search(text))
        first = 1 if _SPACED_END.search(before) and _SPACED_END.search(text[:1]) else 0  # mid-word
        pending: int | None = None
        for i in range(first, len(words)):
            for term in self._terms:
                match _compare(term, [word for _, word in words[i : i + len(term)]], i, len(words), is_open):
                    case "said":
                        return Finding(words[i][0], True)
                    case "pending" if pending is None and not final:
                        pending = words[i][0]
        return None if pending is None else Finding(pending, False)


def _words(text: str) -> list[tuple[int, str]]:
    """Words with where they begin, folded so that case and width do not matter."""
    return [
        (found.start(), unicodedata.normalize("NFKC", found[0]).casefold()) for found in _WORD.finditer(text)
    ]


def _compare(term: list[str], words: list[str], start: int, num_words: int, is_open: bool) -> str:
    """How the words from `start` on stand to a term: said, pending or other."""
    reaches_end = start + len(words) == num_words
    *whole, last = words
    if whole != term[: len(whole)]:
        return "other"
    wanted = term[len(whole)]
    if reaches_end and is_open:
        return "pending" if wanted.startswith(last) else "other"
    if last != wanted:
        return "other"
    return "said" if len(words) == len(term) else "pending"
