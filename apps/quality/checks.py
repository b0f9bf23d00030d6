"""Checks of a text against its brief: pure functions, one row each, in words a person can act on."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.translation import gettext as _

LENGTH_TOLERANCE = 0.25

# Scripts that write no spaces count by the character.
_WORD = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]|[^\W\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]+")


@dataclass(frozen=True, kw_only=True)
class Check:
    """`name` is stable, `label` for people; `detail` names what is missing or too much."""

    name: str
    label: str
    passed: bool
    detail: str


def check_text(
    text: str, *, must_say: Sequence[str], must_not_say: Sequence[str], num_words: int
) -> list[Check]:
    return [
        _facts_kept(text, must_say),
        _banned_terms(text, must_not_say),
        _length(text, num_words),
        _repetition(text),
    ]


def missing_facts(text: str, must_say: Sequence[str]) -> list[str]:
    body = _normalised(text)
    return [fact for fact in must_say if not _says(body, fact)]


def _facts_kept(text: str, must_say: Sequence[str]) -> Check:
    missing = missing_facts(text, must_say)
    detail = _("Missing: %(facts)s") % {"facts": "; ".join(missing)} if missing else ""
    if not missing:
        detail = _("%(num)s of %(num)s found") % {"num": len(must_say)} if must_say else _("None asked for")
    return Check(name="facts", label=_("Must-say facts"), passed=not missing, detail=detail)


def _banned_terms(text: str, must_not_say: Sequence[str]) -> Check:
    body = _normalised(text)
    found = [term for term in must_not_say if _normalised(term).strip() and _says(body, term)]
    detail = _("Found: %(terms)s") % {"terms": ", ".join(found)} if found else _("None found")
    return Check(name="banned", label=_("Must-not-say terms"), passed=not found, detail=detail)


def _length(text: str, num_words: int) -> Check:
    count = len(text.split())
    detail = _("%(count)s of %(asked)s words") % {"count": count, "asked": num_words}
    within = abs(count - num_words) <= LENGTH_TOLERANCE * num_words
    return Check(name="length", label=_("Length"), passed=within, detail=detail)


def _repetition(text: str) -> Check:
    sentences = Counter(
        sentence.strip().lower() for sentence in re.split(r"(?<=[.!?。！？])\s*", text) if sentence.strip()
    )
    repeated = [sentence for sentence, count in sentences.items() if count > 1 and len(sentence) > 12]
    detail = _("Repeated: %(sentence)s") % {"sentence": repeated[0][:80]} if repeated else _("None repeated")
    return Check(name="repetition", label=_("Repeated sentences"), passed=not repeated, detail=detail)


def _says(body: str, phrase: str) -> bool:
    """Whole words only: "14 May" does not say "4 May". A phrase without words is always said."""
    words = _normalised(phrase)
    return words in body or not words.strip()


def _normalised(text: str) -> str:
    """Words in lower case with single spaces around them, so that phrases match whole words."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return f" {' '.join(_WORD.findall(folded))} "
