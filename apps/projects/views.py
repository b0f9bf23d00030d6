"""Pages of projects, their members and their briefs."""

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.accounts.http import SignedInRequest
from apps.common.forms import refusals_on, refusals_said
from apps.projects import services
from apps.projects.forms import BriefForm, MemberForm, ProjectForm
from apps.projects.models import Project, Role
from apps.projects.pages import in_project
from apps.projects.policies import Act, project_for
from apps.projects.services import brief_for

BRIEFS_PER_PAGE = 50


@require_GET
def project_list(request: SignedInRequest) -> HttpResponse:
    projects = Project.objects.for_user(request.user).annotate(num_briefs=Count("briefs", distinct=True))
    return render(request, "projects/list.html", {"projects": projects})


@require_http_methods(["GET", "POST"])
def project_new(request: SignedInRequest) -> HttpResponse:
    form = ProjectForm(request.POST or None)
    if form.is_valid():
        with refusals_on(form):
            project = services.create_project(user=request.user, **form.cleaned_data)
            return redirect("projects:detail", project.pk)
    return render(request, "projects/new.html", {"form": form}, status=_status_of(form))


@require_GET
def project_detail(request: SignedInRequest, project_id: int) -> HttpResponse:
    project = project_for(request.user, project_id)
    by_hand = project.briefs.filter(batch_row__isnull=True)  # a batch lists its own
    briefs = by_hand.select_related("preset", "created_by").annotate(num_drafts=Count("drafts"))
    briefs = briefs.order_by("-created_at", "-pk")  # a grouped query forgets the model's own order
    page = Paginator(briefs, BRIEFS_PER_PAGE).get_page(request.GET.get("page"))
    context = in_project(request.user, project, tab="briefs") | {"page": page}
    return render(request, "projects/detail.html", context)


@require_http_methods(["GET", "POST"])
def member_list(request: SignedInRequest, project_id: int) -> HttpResponse:
    project = project_for(request.user, project_id)
    form = MemberForm(request.POST or None)
    if form.is_valid():
        with refusals_on(form):
            member = services.set_member(user=request.user, project_id=project.pk, **form.cleaned_data)
            role = member.get_role_display()
            messages.success(
                request, _("%(name)s: %(role)s") % {"name": member.user.display_name, "role": role}
            )
            return redirect("projects:members", project.pk)
    context = in_project(request.user, project, tab="members") | {
        "form": form,
        "members": project.memberships.select_related("user").order_by("user__username"),
        "roles": Role.choices,
    }
    return render(request, "projects/members.html", context, status=_status_of(form))


@require_POST
def member_change(request: SignedInRequest, project_id: int) -> HttpResponse:
    username, role = request.POST.get("username", ""), request.POST.get("role", "")
    with refusals_said(request):
        services.set_member(user=request.user, project_id=project_id, username=username, role=role)
        messages.success(request, _("The role is changed."))
    return redirect("projects:members", project_id)


@require_POST
def member_remove(request: SignedInRequest, project_id: int, member_id: int) -> HttpResponse:
    with refusals_said(request):
        services.remove_member(user=request.user, project_id=project_id, member_id=member_id)
        messages.success(request, _("The member is removed."))
    return redirect("projects:members", project_id)


@require_http_methods(["GET", "POST"])
def brief_new(request: SignedInRequest, project_id: int) -> HttpResponse:
    project = project_for(request.user, project_id, Act.WRITE)
    form = BriefForm(request.POST or None, project=project)
    if form.is_valid():
        with refusals_on(form):
            brief = services.create_brief(user=request.user, project_id=project.pk, brief=form.to_input())
            return redirect("drafts:desk", brief.pk)
    context = in_project(request.user, project, tab="briefs") | {"form": form}
    return render(request, "projects/brief_form.html", context, status=_status_of(form))


@require_http_methods(["GET", "POST"])
def brief_edit(request: SignedInRequest, brief_id: int) -> HttpResponse:
    brief = brief_for(request.user, brief_id, Act.WRITE)
    form = BriefForm(request.POST or None, project=brief.project, initial=BriefForm.initial_of(brief))
    if form.is_valid():
        with refusals_on(form):
            services.update_brief(user=request.user, brief_id=brief.pk, brief=form.to_input())
            return redirect("drafts:desk", brief.pk)
    context = in_project(request.user, brief.project, tab="briefs") | {"form": form, "brief": brief}
    return render(request, "projects/brief_form.html", context, status=_status_of(form))


def _status_of(form: ProjectForm | MemberForm | BriefForm) -> int:
    return 400 if form.errors else 200
