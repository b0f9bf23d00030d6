"""What the school has to work with, and what is live."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from apps.projects.models import Project
from apps.reviews.models import APPROVALS, Decision
from apps.tuning.models import Adapter, Release, Run

MIN_CHARS = 40
MAX_CHARS = 12_000
MIN_BRIEFS = 3
"""The third brief is the first to be held back: with fewer the gate would have nothing to measure."""


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    reason: str
    label: str
    decisions: list[Decision]


@dataclass(frozen=True, kw_only=True)
class Usable:
    """Approved texts fit for training, and the others by the reason that keeps them out."""

    decisions: list[Decision]
    exclusions: list[Exclusion]

    @property
    def is_enough(self) -> bool:
        return not self.num_missing

    @property
    def num_missing(self) -> int:
        """Approved texts, or briefs that have one, still to come before a training makes sense."""
        num_briefs = len({decision.review.draft.brief_id for decision in self.decisions})
        return max(0, int(settings.GALLEY_MIN_SAMPLES) - len(self.decisions), MIN_BRIEFS - num_briefs)


def usable_samples(project: Project) -> Usable:
    decisions = (
        Decision.objects.filter(review__draft__brief__project=project, decision__in=APPROVALS)
        .select_related("review__draft__brief")
        .order_by("decided_at", "pk")
    )
    usable: list[Decision] = []
    left_out: dict[str, list[Decision]] = {"too_short": [], "too_long": [], "duplicate": []}
    seen: set[str] = set()
    for decision in decisions:
        reason = _reason_to_exclude(decision, seen)
        if reason:
            left_out[reason].append(decision)
        else:
            seen.add(decision.text_sha256)
            usable.append(decision)
    labels = {
        "too_short": _("shorter than %(num)s characters") % {"num": MIN_CHARS},
        "too_long": _("longer than %(num)s characters") % {"num": MAX_CHARS},
        "duplicate": _("the same text again"),
    }
    exclusions = [
        Exclusion(reason=reason, label=labels[reason], decisions=rows)
        for reason, rows in left_out.items()
        if rows
    ]
    return Usable(decisions=usable, exclusions=exclusions)


def _reason_to_exclude(decision: Decision, seen: set[str]) -> str | None:
    if len(decision.text) < MIN_CHARS:
        return "too_short"
    if len(decision.text) > MAX_CHARS:
        return "too_long"
    return "duplicate" if decision.text_sha256 in seen else None


def live_release(project: Project) -> Release | None:
    """The release that the next draft is written with; None for the base model."""
    return project.releases.select_related("adapter").order_by("-number").first()


def active_run(project: Project) -> Run | None:
    return project.runs.filter(state__in=["queued", "running"]).first()


def adapters_of(project: Project) -> QuerySet[Adapter]:
    return project.adapters.select_related("run__dataset").order_by("-version")


def run_metrics(run: Run, *, kind: str) -> list[dict[str, Any]]:
    """The metrics of a run as they are charted: a list of {step, loss, ...} in order."""
    rows = run.metrics.filter(kind=kind).order_by("pk").values_list("step", "values")
    return [{"step": step, **values} for step, values in rows]
