"""Pulls a text towards the terms that it has to say, while it is being written."""

from collections.abc import Iterable
from typing import NamedTuple

from inference.engine.terms import Terms

TERM_PULL, END_PULL = 4.0, 2.0
"""Added to the logit of a token that goes on with a term, taken from that of the end."""

_SURE_BYTES = 6
"""A term of which so much stands there is meant; with less it may be another that begins like it."""


class Pull(NamedTuple):
    """`rest` are the bytes that complete a term, `strength` is a share above 0 and up to 1."""

    rest: bytes
    strength: float


class WantedTerms:
    """Terms that the text should say as they are; one that it has said pulls no more.

    A small model loses most facts by a single wrong token in the middle of a name or a figure. So
    a term that has begun makes its own next bytes likelier. Nothing is forced: what the model is
    sure of stays. Shallow fusion with a list of phrases is the same idea in speech recognition
    (Zhao et al. 2019).
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
        """How each unsaid term goes on of which the end of the text is a beginning."""
        end = written[-self._longest - 1 :]
        unsaid = (term for term in self._terms if term.said_at is None)
        return [pull for term in unsaid for form in term.forms if (pull := _pull(form, end))]


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


def _pull(form: bytes, end: bytes) -> Pull | None:
    for size in range(min(len(form) - 1, len(end)), 0, -1):
        if not end.endswith(form[:size]):
            continue
        before = end[-size - 1 : -size]
        if before.isalnum() and form[:1].isalnum():
            continue  # in the middle of a word
        return Pull(form[size:], min(1.0, size / _SURE_BYTES))
    return None
