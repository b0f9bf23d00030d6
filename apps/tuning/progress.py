"""How a run is doing, in words and figures."""

from dataclasses import dataclass

from django.utils import timezone
from django.utils.translation import gettext as _

from apps.common.leases import JobState
from apps.tuning.models import Run

SILENCE_S = 60
"""A running run that has reported nothing for this long is not called running any more."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """`state` is for the chip: the run's own, or `lost`. `eta_s` is None while nobody can know."""

    state: str
    label: str
    sentence: str
    eta_s: int | None


def progress_of(run: Run) -> Progress:
    state = "lost" if _is_silent(run) else run.state
    eta_s = _eta_s(run) if state == "running" else None
    return Progress(state=state, label=_label(state), sentence=_sentence(run, state), eta_s=eta_s)


def _is_silent(run: Run) -> bool:
    if run.state != JobState.RUNNING or run.progress_at is None:
        return False
    return (timezone.now() - run.progress_at).total_seconds() > SILENCE_S


def _label(state: str) -> str:
    labels = {
        "queued": _("Waiting"),
        "running": _("Running"),
        "stopped": _("Stopped"),
        "done": _("Done"),
        "failed": _("Failed"),
        "cancelled": _("Cancelled"),
        "lost": _("Lost"),
    }
    return labels[state]


def _sentence(run: Run, state: str) -> str:
    if state == "running":
        return _running_sentence(run)
    sentences = {
        "queued": _("Waits for the training worker."),
        "stopped": _("Stopped after step %(step)s; a checkpoint is kept to resume from."),
        "done": _("Trained and judged by the gate."),
        "failed": _("Failed: %(message)s"),
        "cancelled": _("Cancelled before it began."),
        "lost": _("The worker has gone silent at step %(step)s. The run is taken up again by itself."),
    }
    return sentences[state] % {"step": run.step, "message": run.message or run.reason}


def _running_sentence(run: Run) -> str:
    if run.cancel_requested_at:
        return _("Stops at the next step and keeps a checkpoint.")
    phases = {
        "preparing": _("Freezes the samples and loads the model."),
        "training": _("Learns from the approved drafts."),
        "gate": _("Writes the held-back briefs with the new adapter and compares."),
    }
    return phases.get(run.phase, _("Begins."))


def _eta_s(run: Run) -> int | None:
    """Seconds to the last step at the pace so far. Loading and the gate are not in it."""
    steps = run.metrics.filter(kind="step").order_by("pk")
    first, last = steps.first(), steps.last()
    if run.phase != "training" or not first or not last or first == last:
        return None
    pace_s = (last.created_at - first.created_at).total_seconds() / (last.step - first.step)
    return round(pace_s * (run.num_steps - last.step))
