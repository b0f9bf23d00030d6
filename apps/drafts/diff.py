"""What changed between two texts, word by word."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import Indel

Kind = Literal["equal", "insert", "delete"]

# A run of letters or digits of a script that writes words apart; else one character with its
# combining marks: so a Chinese sentence is compared character by character.
_TOKEN = re.compile(r"[^\W\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]+|\s+|.[\u0300-\u036f\u200d\ufe0f]*", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """`hunk` counts the changes from 1; a deletion and the insertion in its place share one. 0: unchanged."""

    kind: Kind
    text: str
    hunk: int = 0


def diff(old: str, new: str) -> list[Piece]:
    """Pieces in reading order: without the insertions they are `old`, without the deletions `new`."""
    old_tokens, new_tokens = _TOKEN.findall(old), _TOKEN.findall(new)
    changes = _joined(_changes(old_tokens, new_tokens), old_tokens)
    pieces: list[Piece] = []
    end = 0
    for hunk, (old_start, old_end, new_start, new_end) in enumerate(changes, start=1):
        pieces.append(Piece(kind="equal", text="".join(old_tokens[end:old_start])))
        pieces.append(Piece(kind="delete", text="".join(old_tokens[old_start:old_end]), hunk=hunk))
        pieces.append(Piece(kind="insert", text="".join(new_tokens[new_start:new_end]), hunk=hunk))
        end = old_end
    pieces.append(Piece(kind="equal", text="".join(old_tokens[end:])))
    return [piece for piece in pieces if piece.text]


def num_hunks(pieces: Sequence[Piece]) -> int:
    return max((piece.hunk for piece in pieces), default=0)


Change = tuple[int, int, int, int]
"""Token positions: old start and end, new start and end."""


def _changes(old: Sequence[str], new: Sequence[str]) -> list[Change]:
    codes = Indel.opcodes(old, new)
    return [
        (code.src_start, code.src_end, code.dest_start, code.dest_end) for code in codes if code.tag != "equal"
    ]


def _joined(changes: Sequence[Change], old: Sequence[str]) -> list[Change]:
    """Changes that touch, or that only white space parts, are one: "the old | a new" reads as one change."""
    joined: list[Change] = []
    for change in changes:
        last = joined[-1] if joined else None
        if last and not "".join(old[last[1] : change[0]]).strip():
            joined[-1] = (last[0], change[1], last[2], change[3])
        else:
            joined.append(change)
    return joined
