"""What changed between two texts, word by word."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Literal

from rapidfuzz.distance import Indel

Kind = Literal["equal", "insert", "delete"]

# A word and the white space after it. A word is a run of letters and digits of a script that
# writes words apart, else one character with its marks: so Chinese is compared character by character.
_UNIT = re.compile(
    r"((?:[^\W\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff][\u0300-\u036f]*)+|\S[\u0300-\u036f\u200d\ufe0f]*)(\s*)"
)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """`hunk` counts the changes from 1; a deletion and the insertion in its place share one. 0: unchanged."""

    kind: Kind
    text: str
    hunk: int = 0


def diff(old: str, new: str) -> list[Piece]:
    """Pieces in reading order: without the insertions they are `old`, without the deletions `new`."""
    pieces: list[Piece] = []
    hunk = 0
    for is_change, spans in groupby(_spans(_units(old), _units(new)), key=lambda span: span[0] != span[1]):
        before, after = (("".join(texts)) for texts in zip(*spans, strict=True))
        if not is_change:
            pieces.append(Piece(kind="equal", text=before))
            continue
        hunk += 1
        pieces += _change(before, after, hunk)
    return [piece for piece in pieces if piece.text]


def num_hunks(pieces: Sequence[Piece]) -> int:
    return max((piece.hunk for piece in pieces), default=0)


Unit = tuple[str, str]
Span = tuple[str, str]
"""The same place in the old text and in the new one."""


def _units(text: str) -> list[Unit]:
    """Words with the white space after each; the first is empty and holds the space at the start."""
    indent = text[: len(text) - len(text.lstrip())]
    return [("", indent), *_UNIT.findall(text[len(indent) :])]


def _spans(old: Sequence[Unit], new: Sequence[Unit]) -> Iterator[Span]:
    """Only words decide what matches what: spaces would outvote them, being every second token."""
    for code in Indel.opcodes([word for word, _space in old], [word for word, _space in new]):
        units, others = old[code.src_start : code.src_end], new[code.dest_start : code.dest_end]
        if code.tag != "equal":
            yield _text(units), _text(others)
            continue
        for (word, space), (_word, other_space) in zip(units, others, strict=True):
            yield word, word
            yield space, other_space


def _text(units: Iterable[Unit]) -> str:
    return "".join(word + space for word, space in units)


def _change(before: str, after: str, hunk: int) -> list[Piece]:
    """A deletion and an insertion, without the white space that both of them end with."""
    end = _common_space(before, after)
    return [
        Piece(kind="delete", text=before.removesuffix(end), hunk=hunk),
        Piece(kind="insert", text=after.removesuffix(end), hunk=hunk),
        Piece(kind="equal", text=end),
    ]


def _common_space(before: str, after: str) -> str:
    pairs = zip(reversed(before), reversed(after), strict=False)
    shared = sum(1 for _pair in takewhile(lambda pair: pair[0] == pair[1] and pair[0].isspace(), pairs))
    return before[len(before) - shared :]
