"""Pages of the school: samples, runs, adapters, and what is live."""

from dataclasses import dataclass

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from apps.accounts.http import SignedInRequest
from apps.common.forms import refusals_said
from apps.projects.pages import in_project
from apps.projects.policies import Act, project_for
from apps.tuning import selectors, services
from apps.tuning.models import Adapter, Release, Run
from apps.tuning.progress import Progress, progress_of

NUM_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class RunRow:
    run: Run
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class AdapterRow:
    """`why_not` is the reason why it cannot be promoted; empty when it can."""

    adapter: Adapter
    is_live: bool
    why_not: str


@require_GET
def school(request: SignedInRequest, project_id: int) -> HttpResponse:
    project = project_for(request.user, project_id)
    live = selectors.live_release(project)
    runs = project.runs.select_related("dataset", "created_by", "adapter")[:NUM_SHOWN]
    context = in_project(request.user, project, tab="training") | {
        "usable": selectors.usable_samples(project),
        "min_samples": settings.GALLEY_MIN_SAMPLES,
        "active_run": selectors.active_run(project),
        "nightly_at": settings.GALLEY_NIGHTLY_AT,
        "night": project.nights.first(),
        "runs": [RunRow(run=run, progress=progress_of(run)) for run in runs],
        "adapters": [_adapter_row(adapter, live) for adapter in selectors.adapters_of(project)[:NUM_SHOWN]],
        "live": live,
        "releases": project.releases.select_related("adapter", "created_by")[:NUM_SHOWN],
    }
    return render(request, "tuning/school.html", context)


@require_POST
def start(request: SignedInRequest, project_id: int) -> HttpResponse:
    with refusals_said(request):
        run = services.start_run(user=request.user, project_id=project_id)
        return redirect("tuning:run", run.pk)
    return redirect("tuning:school", project_id)


@require_GET
def run_page(request: SignedInRequest, run_id: int) -> HttpResponse:
    run = services.run_for(request.user, run_id)
    adapter = Adapter.objects.filter(run=run).first()
    live = selectors.live_release(run.project)
    steps = selectors.run_metrics(run, kind="step")
    context = in_project(request.user, run.project, tab="training") | {
        "run": run,
        "progress": progress_of(run),
        "row": _adapter_row(adapter, live) if adapter else None,
        "steps": steps,
        "evals": selectors.run_metrics(run, kind="eval"),
    }
    return render(request, "tuning/run.html", context)


@require_POST
def stop(request: SignedInRequest, run_id: int) -> HttpResponse:
    with refusals_said(request):
        services.stop_run(user=request.user, run_id=run_id)
    return redirect("tuning:run", run_id)


@require_POST
def resume(request: SignedInRequest, run_id: int) -> HttpResponse:
    with refusals_said(request):
        services.resume_run(user=request.user, run_id=run_id)
    return redirect("tuning:run", run_id)


@require_POST
def promote(request: SignedInRequest, adapter_id: int) -> HttpResponse:
    adapter = services.adapter_for(request.user, adapter_id, Act.TRAIN)
    with refusals_said(request):
        release = services.promote(user=request.user, adapter_id=adapter_id)
        messages.success(request, _("%(name)s is live from the next draft on.") % {"name": release.label})
    return redirect("tuning:school", adapter.project_id)


@require_POST
def roll_back(request: SignedInRequest, project_id: int) -> HttpResponse:
    with refusals_said(request):
        release = services.roll_back(user=request.user, project_id=project_id)
        messages.success(request, _("Rolled back: %(name)s is live again.") % {"name": release.label})
    return redirect("tuning:school", project_id)


def _adapter_row(adapter: Adapter, live: Release | None) -> AdapterRow:
    is_live = live is not None and live.adapter_id == adapter.pk
    why_not = _("It is live already.") if is_live else ""
    if not adapter.gate_passed:
        why_not = _("The gate has refused it.")
    return AdapterRow(adapter=adapter, is_live=is_live, why_not=why_not)
