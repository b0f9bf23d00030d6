"""The gate: what a new adapter must show on held-back approved drafts before it may go live.

Pure functions over figures that the training worker has measured.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from django.utils.translation import gettext as _
from rapidfuzz.distance import Levenshtein

from apps.quality.checks import missing_facts

MAX_LOSS_RATIO = 1.02
MAX_DISTANCE_RISE = 0.02
MAX_FACTS_DROP = 0.05
MIN_ENDED = 0.95
MAX_LENGTH_RATIO = 1.5
ONE_SIDED_95 = 1.645


@dataclass(frozen=True, kw_only=True)
class HeldOutText:
    """A brief held back, its approved text, and what a model wrote for it greedily."""

    approved: str
    written: str
    ended: bool
    must_say: Sequence[str] = field(default=())


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One side of the comparison. `loss` is the mean negative log likelihood per token, in nats."""

    loss: float
    texts: Sequence[HeldOutText]

    @property
    def distances(self) -> list[float]:
        """Normalised Levenshtein distance of each new draft to its approved text: 0 equal, 1 all other."""
        return [Levenshtein.normalized_distance(text.written, text.approved) for text in self.texts]

    @property
    def distance(self) -> float:
        return fmean(self.distances)

    @property
    def num_facts(self) -> int:
        return sum(len(text.must_say) for text in self.texts)

    @property
    def num_facts_kept(self) -> int:
        return self.num_facts - sum(len(missing_facts(text.written, text.must_say)) for text in self.texts)

    @property
    def facts_kept(self) -> float:
        return self.num_facts_kept / self.num_facts if self.num_facts else 1.0

    @property
    def ended(self) -> float:
        return fmean(text.ended for text in self.texts)

    @property
    def length_ratio(self) -> float:
        """Mean length of what was written over the mean length of what was approved, in characters."""
        return fmean(len(text.written) for text in self.texts) / max(
            1.0, fmean(len(text.approved) for text in self.texts)
        )


@dataclass(frozen=True, kw_only=True)
class GateCheck:
    name: str
    label: str
    candidate: float
    live: float | None
    bar: str
    passed: bool


def judge(*, candidate: Measured, live: Measured) -> list[GateCheck]:
    """Every check with both figures and its bar; the adapter may go live when all have passed."""
    changed = fmean(new.written != old.written for new, old in zip(candidate.texts, live.texts, strict=True))
    return [
        GateCheck(
            name="likelihood",
            label=_("Loss on approved text"),
            candidate=candidate.loss,
            live=live.loss,
            bar=_("at most %(ratio)s × live") % {"ratio": MAX_LOSS_RATIO},
            passed=candidate.loss <= live.loss * MAX_LOSS_RATIO,
        ),
        GateCheck(
            name="distance",
            label=_("Edit distance of new drafts to approved text"),
            candidate=candidate.distance,
            live=live.distance,
            bar=_("at most live + %(rise)s, beyond chance") % {"rise": MAX_DISTANCE_RISE},
            passed=_rise_beyond_chance(live.distances, candidate.distances) <= MAX_DISTANCE_RISE,
        ),
        GateCheck(
            name="facts",
            label=_("Must-say facts kept"),
            candidate=candidate.facts_kept,
            live=live.facts_kept,
            bar=_("at most one fact fewer than live, or %(drop)s") % {"drop": MAX_FACTS_DROP},
            passed=live.num_facts_kept - candidate.num_facts_kept
            <= max(1, MAX_FACTS_DROP * candidate.num_facts),
        ),
        GateCheck(
            name="ended",
            label=_("Drafts that end by themselves"),
            candidate=candidate.ended,
            live=live.ended,
            bar=_("at least %(share)s") % {"share": MIN_ENDED},
            passed=candidate.ended >= min(MIN_ENDED, live.ended),
        ),
        GateCheck(
            name="length",
            label=_("Length against approved text"),
            candidate=candidate.length_ratio,
            live=live.length_ratio,
            bar=_("at most %(ratio)s") % {"ratio": MAX_LENGTH_RATIO},
            passed=candidate.length_ratio <= max(MAX_LENGTH_RATIO, live.length_ratio),
        ),
        GateCheck(
            name="effect",
            label=_("Drafts that the adapter changes"),
            candidate=changed,
            live=None,
            bar=_("more than 0"),
            passed=changed > 0,
        ),
    ]


def _rise_beyond_chance(live: Sequence[float], candidate: Sequence[float]) -> float:
    """Lower end of the one-sided 95 % interval of the mean paired rise (normal approximation).

    A greedy draft and an approved text that was once sampled differ by chance, and a small project
    holds back few: of 14 runs with two or three such pairs, 3 were refused for nothing. One pair
    alone says nothing.
    """
    rises = [new - old for old, new in zip(live, candidate, strict=True)]
    if len(rises) < 2:
        return 0.0
    return fmean(rises) - ONE_SIDED_95 * stdev(rises) / sqrt(len(rises))


def as_rows(checks: Sequence[GateCheck]) -> list[dict[str, Any]]:
    return [asdict(check) for check in checks]
