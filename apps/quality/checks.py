"""Checks of a text against its brief: pure functions, one row each, in words a person can act on."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.translation import gettext as _

from apps.common.words import count_words, normalised, says

LENGTH_TOLERANCE = 0.25


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
    return [fact for fact in must_say if not says(text, fact)]


def _facts_kept(text: str, must_say: Sequence[str]) -> Check:
    missing = missing_facts(text, must_say)
    detail = _("Missing: %(facts)s") % {"facts": "; ".join(missing)} if missing else ""
    if not missing:
        detail = _("%(num)s of %(num)s found") % {"num": len(must_say)} if must_say else _("None asked for")
    return Check(name="facts", label=_("Must-say facts"), passed=not missing, detail=detail)


def _banned_terms(text: str, must_not_say: Sequence[str]) -> Check:
    found = [term for term in must_not_say if normalised(term).strip() and says(text, term)]
    detail = _("Found: %(terms)s") % {"terms": ", ".join(found)} if found else _("None found")
    return Check(name="banned", label=_("Must-not-say terms"), passed=not found, detail=detail)


def _length(text: str, num_words: int) -> Check:
    count = count_words(text)
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
