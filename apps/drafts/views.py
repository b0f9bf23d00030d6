"""The writing desk: one page per brief. The texts arrive over the socket, see consumers.py."""

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from apps.accounts.http import SignedInRequest
from apps.common.forms import refusals_on, refusals_said
from apps.drafts import selectors, services
from apps.drafts.forms import WriteForm
from apps.drafts.models import Draft
from apps.projects.models import Brief
from apps.projects.pages import in_project
from apps.projects.policies import Act
from apps.projects.services import brief_for


@require_GET
def desk(request: SignedInRequest, brief_id: int) -> HttpResponse:
    return _desk(request, brief_for(request.user, brief_id), WriteForm())


@require_POST
def write(request: SignedInRequest, brief_id: int) -> HttpResponse:
    brief = brief_for(request.user, brief_id, Act.WRITE)
    form = WriteForm(request.POST)
    if form.is_valid():
        with refusals_on(form):
            services.request_drafts(user=request.user, brief_id=brief.pk, **form.cleaned_data)
            return redirect("drafts:desk", brief.pk)
    return _desk(request, brief, form, status=400)


@require_GET
def draft(request: SignedInRequest, draft_id: int) -> HttpResponse:
    """A draft by its own address: the desk, opened at it."""
    found = services.draft_for(request.user, draft_id)
    return _desk(request, found.brief, WriteForm(), opened=found)


@require_POST
def stop(request: SignedInRequest, draft_id: int) -> HttpResponse:
    with refusals_said(request):
        services.cancel_draft(user=request.user, draft_id=draft_id)
    return redirect("drafts:draft", draft_id)


def _desk(
    request: SignedInRequest, brief: Brief, form: WriteForm, *, opened: Draft | None = None, status: int = 200
) -> HttpResponse:
    rounds = selectors.drafts_of(brief)
    shown = next((each for each in rounds if opened in each), rounds[0] if rounds else [])
    context = in_project(request.user, brief.project, tab="briefs") | {
        "brief": brief,
        "form": form,
        "rounds": rounds,
        "shown": shown,
        "opened": opened or (shown[0] if shown else None),
        "model_problem": selectors.model_problem(),
    }
    return render(request, "drafts/desk.html", context, status=status)
