"""Pulls a text towards the terms that it has to say, while it is being written."""

from collections.abc import Iterable
from typing import NamedTuple

from inference.engine.terms import Terms

TERM_PULL, END_PULL = 4.0, 2.0
"""Added to the logit of a token that goes on with a term, taken from that of the end."""

_SURE_BYTES = 6
"""A term of which so much stands there is meant; with less it may be another that begins like it."""


_AT_AN_OPENING, _ANYWHERE = 0.75, 0.25
"""How strongly a term is pulled that has not begun: where a sentence or a part of one begins, and else."""

_OPENINGS = tuple(sign.encode() for sign in '.:!?,\n-—“”"。：！？，「')
_NO_SPACE_AFTER = tuple(sign.encode() for sign in "\n“”「。：！？，")


class Pull(NamedTuple):
    """`rest` are the bytes that complete a term, all of it at a start; `strength` is a share up to 1."""

    rest: bytes
    strength: float
    is_start: bool = False


class WantedTerms:
    """Terms that the text should say as they are; one that it has said pulls no more.

    A small model loses most facts by a single wrong token in the middle of a name or a figure. So
    a term that has begun makes its own next bytes likelier, and one that has not its first ones a
    little. Nothing is forced: what the model is sure of stays. Shallow fusion with a list of phrases
    is the same idea in speech recognition (Zhao et al. 2019).
    """

    def __init__(self, terms: Iterable[str], *, written: str = "") -> None:
        self._terms = [_Term(term, written) for term in terms if term.strip()]
        self._longest = max((len(form) for term in self._terms for form in term.forms), default=0)

    def look(self, written: bytes) -> None:
        """Take notice of the whole text so far, after every token; it may have become shorter."""
        for term in self._terms:
            term.look(written, written[-2 * self._longest :])

    @property
    def is_any_unsaid(self) -> bool:
        return any(term.said_at is None for term in self._terms)

    def pulls(self, written: bytes) -> list[Pull]:
        """How each unsaid term goes on, or begins."""
        end = written[-self._longest - 1 :]
        unsaid = (term for term in self._terms if term.said_at is None)
        return [_pull(form, end) for term in unsaid for form in term.forms]


class _Term:
    def __init__(self, term: str, written: str) -> None:
        # At the beginning of a sentence it has a capital, in the middle of one it may lose its own.
        self.forms = {
            form.encode() for form in (term, term[0].upper() + term[1:], term[0].lower() + term[1:])
        }
        self._check = Terms([term])
        self._last = term[-1:].casefold()
        self.said_at = len(written.encode()) if self._check.find(written, final=True) else None

    def look(self, written: bytes, tail: bytes) -> None:
        if self.said_at is not None and len(written) < self.said_at:
            self.said_at = None
        text = tail.decode(errors="ignore")
        if self.said_at is None and text[-1:].casefold() == self._last and self._check.find(text, final=True):
            self.said_at = len(written)


def _pull(form: bytes, end: bytes) -> Pull:
    for size in range(min(len(form) - 1, len(end)), 0, -1):
        before = end[-size - 1 : -size]
        in_a_word = before.isalnum() and form[:1].isalnum()
        if end.endswith(form[:size]) and not in_a_word:
            return Pull(form[size:], min(1.0, size / _SURE_BYTES))
    before = end.rstrip(b" ")
    needs_space = before == end and form[:1].isascii() and not end.endswith(_NO_SPACE_AFTER)
    rest = b" " + form if end and needs_space else form
    opens = not before or before.endswith(_OPENINGS)
    return Pull(rest, _AT_AN_OPENING if opens else _ANYWHERE, is_start=True)
