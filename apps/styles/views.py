"""Pages of style presets."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from apps.accounts.http import SignedInRequest
from apps.common.forms import refusals_on
from apps.projects.pages import in_project
from apps.projects.policies import Act, can, project_for, require
from apps.styles import selectors, services
from apps.styles.forms import PresetForm, VersionForm


@require_GET
def preset_list(request: SignedInRequest, project_id: int) -> HttpResponse:
    project = project_for(request.user, project_id)
    context = in_project(request.user, project, tab="presets") | {"presets": project.presets.all()}
    return render(request, "styles/list.html", context)


@require_http_methods(["GET", "POST"])
def preset_new(request: SignedInRequest, project_id: int) -> HttpResponse:
    project = project_for(request.user, project_id, Act.STYLE)
    form = PresetForm(request.POST or None)
    if form.is_valid():
        with refusals_on(form):
            preset = services.create_preset(
                user=request.user,
                project_id=project.pk,
                name=form.cleaned_data["name"],
                kind=form.cleaned_data["kind"],
                preset=form.to_input(),
            )
            return redirect("styles:detail", preset.pk)
    context = in_project(request.user, project, tab="presets") | {"form": form}
    return render(request, "styles/new.html", context, status=400 if form.errors else 200)


@require_http_methods(["GET", "POST"])
def preset_detail(request: SignedInRequest, preset_id: int) -> HttpResponse:
    preset = services.preset_for(request.user, preset_id)
    form = VersionForm(request.POST or None, initial=VersionForm.initial_of(preset.current))
    if request.method == "POST":
        require(request.user, preset.project, Act.STYLE)
    if form.is_valid():
        with refusals_on(form):
            version = services.change_preset(user=request.user, preset_id=preset.pk, preset=form.to_input())
            messages.success(
                request,
                _("Version %(number)s is in use from the next draft on.") % {"number": version.number},
            )
            return redirect("styles:detail", preset.pk)
    if not can(preset.project.role_of(request.user), Act.STYLE):
        for field in form.fields.values():
            field.disabled = True
    context = in_project(request.user, preset.project, tab="presets") | {
        "form": form,
        "preset": preset,
        "history": selectors.history(preset),
    }
    return render(request, "styles/detail.html", context, status=400 if form.errors else 200)
