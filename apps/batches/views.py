"""Pages of batches: the list, the file, its dry run, and how the writing goes."""

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.paginator import Page, Paginator
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.accounts.http import SignedInRequest
from apps.batches import results, selectors, services
from apps.batches.columns import FIELDS, brief_of
from apps.batches.files import MAX_ROWS
from apps.batches.forms import BatchForm, MappingForm, read_upload
from apps.batches.models import UNFINISHED, Batch, BatchRow, BatchState, RowState
from apps.batches.progress import Progress, progress_of
from apps.batches.services import batch_for
from apps.common.forms import refusals_on, refusals_said
from apps.drafts.selectors import model_problem
from apps.projects.pages import in_project
from apps.projects.policies import Act, project_for
from apps.projects.services import BriefInput

BATCHES_PER_PAGE = 25
ROWS_PER_PAGE = 25
SAMPLE = "\r\n".join(
    (
        "\ufeffsubject,audience,angle,must say,must not say,tone,words",
        "Night buses return to Mill Lane,residents,what changes on Fridays,"
        "it begins on 3 June; the fare stays at 2 euros,cheap,plain,90",
        "The town band turns ninety,families,the oldest member tells,the concert is free,,warm,110",
        "",
    )
)


@dataclass(frozen=True, kw_only=True)
class ListedBatch:
    batch: Batch
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class DryRow:
    """A row of the file and the brief that would be made of it."""

    row: BatchRow
    brief: BriefInput
    length: int | None


@dataclass(frozen=True, kw_only=True)
class RowTab:
    """One filter over the rows; `state` is empty for all."""

    state: str
    label: str
    num: int


@require_GET
def batch_list(request: SignedInRequest, project_id: int) -> HttpResponse:
    project = project_for(request.user, project_id)
    page = Paginator(selectors.batches_of(project), BATCHES_PER_PAGE).get_page(request.GET.get("page"))
    counts = selectors.counts_of(page)
    listed = [ListedBatch(batch=batch, progress=progress_of(batch, counts[batch.pk])) for batch in page]
    context = in_project(request.user, project, tab="batches") | {"page": page, "listed": listed}
    return render(request, "batches/list.html", context)


@require_http_methods(["GET", "POST"])
def upload(request: SignedInRequest, project_id: int) -> HttpResponse:
    project = project_for(request.user, project_id, Act.WRITE)
    form = BatchForm(request.POST or None, request.FILES or None, project=project)
    if form.is_valid():
        with refusals_on(form):
            table = read_upload(form.cleaned_data["file"])
            batch = services.create_batch(
                user=request.user, project_id=project.pk, table=table, batch=form.to_input()
            )
            return redirect("batches:detail", batch.pk)
    context = in_project(request.user, project, tab="batches") | {
        "form": form,
        "fields": FIELDS.values(),
        "max_rows": MAX_ROWS,
    }
    return render(request, "batches/new.html", context, status=400 if form.errors else 200)


@require_GET
def sample(request: SignedInRequest, project_id: int) -> HttpResponse:
    project_for(request.user, project_id)
    headers = {"Content-Disposition": 'attachment; filename="galley-briefs.csv"'}
    return HttpResponse(SAMPLE, content_type="text/csv; charset=utf-8", headers=headers)


@require_GET
def detail(request: SignedInRequest, batch_id: int) -> HttpResponse:
    batch = batch_for(request.user, batch_id)
    if batch.state == BatchState.DRAFT:
        return _dry_run(request, batch, MappingForm(batch=batch))
    return render(request, "batches/progress.html", _progress_context(request, batch))


@require_POST
def columns(request: SignedInRequest, batch_id: int) -> HttpResponse:
    """The buttons "Check again" and "Start" send the same form: what is started is what was shown."""
    batch = batch_for(request.user, batch_id, Act.WRITE)
    form = MappingForm(request.POST, batch=batch)
    if form.is_valid():
        with refusals_on(form):
            if form.to_mapping() != batch.mapping:
                services.map_columns(user=request.user, batch_id=batch.pk, mapping=form.to_mapping())
                messages.info(request, _("Checked with these columns. Nothing is started yet."))
            elif "start" in request.POST:
                services.start_batch(user=request.user, batch_id=batch.pk)
            return redirect("batches:detail", batch.pk)
    return _dry_run(request, batch, form, status=400)


@require_POST
def discard(request: SignedInRequest, batch_id: int) -> HttpResponse:
    batch = batch_for(request.user, batch_id, Act.WRITE)
    with refusals_said(request):
        services.discard_batch(user=request.user, batch_id=batch.pk)
        messages.success(request, _("The file is discarded."))
        return redirect("batches:list", batch.project_id)
    return redirect("batches:detail", batch.pk)


@require_POST
def pause(request: SignedInRequest, batch_id: int) -> HttpResponse:
    with refusals_said(request):
        services.pause_batch(user=request.user, batch_id=batch_id)
    return redirect("batches:detail", batch_id)


@require_POST
def resume(request: SignedInRequest, batch_id: int) -> HttpResponse:
    with refusals_said(request):
        services.resume_batch(user=request.user, batch_id=batch_id)
    return redirect("batches:detail", batch_id)


@require_POST
def cancel(request: SignedInRequest, batch_id: int) -> HttpResponse:
    with refusals_said(request):
        services.cancel_batch(user=request.user, batch_id=batch_id)
    return redirect("batches:detail", batch_id)


@require_POST
def retry(request: SignedInRequest, batch_id: int) -> HttpResponse:
    with refusals_said(request):
        num = services.retry_failed(user=request.user, batch_id=batch_id)
        text = ngettext("%(num)s row is tried again.", "%(num)s rows are tried again.", num)
        messages.success(request, text % {"num": num})
    return redirect("batches:detail", batch_id)


@require_GET
def results_csv(request: SignedInRequest, batch_id: int) -> StreamingHttpResponse:
    return results.csv_response(batch_for(request.user, batch_id))


@require_GET
def results_jsonl(request: SignedInRequest, batch_id: int) -> StreamingHttpResponse:
    return results.jsonl_response(batch_for(request.user, batch_id))


def _dry_run(request: SignedInRequest, batch: Batch, form: MappingForm, *, status: int = 200) -> HttpResponse:
    counts = selectors.counts(batch)
    tabs = {"": _("All rows"), RowState.WAITING: _("Will be written"), RowState.REFUSED: _("Left out")}
    page, tab_context = _rows_page(request, batch, counts, tabs)
    shown = [_dry_row(batch, row) for row in page]
    context = in_project(request.user, batch.project, tab="batches") | tab_context
    context |= {"batch": batch, "form": form, "shown": shown, "counts": counts, "unread": _unread(batch)}
    return render(request, "batches/dry_run.html", context, status=status)


def _dry_row(batch: Batch, row: BatchRow) -> DryRow:
    """A length that was refused is shown as none: the problem beside it names what the cell says."""
    has_length = all(problem["field"] != "num_words" for problem in row.problems)
    mapping = {field: name for field, name in batch.mapping.items() if has_length or field != "num_words"}
    brief = brief_of(row.fields, mapping, preset_id=batch.preset_id)
    return DryRow(row=row, brief=brief, length=brief.num_words if has_length else None)


def _unread(batch: Batch) -> list[str]:
    """Columns that no field takes: said, so that nobody waits for their effect."""
    return [column for column in batch.columns if column not in batch.mapping.values()]


def _progress_context(request: SignedInRequest, batch: Batch) -> dict[str, Any]:
    progress = progress_of(batch, selectors.counts(batch))
    in_order = (*UNFINISHED, RowState.READY, RowState.FAILED, RowState.CANCELLED, RowState.REFUSED)
    tabs = {"": _("All rows")} | {state.value: str(state.label) for state in in_order}
    _page, tab_context = _rows_page(request, batch, progress.counts, tabs)
    return (
        in_project(request.user, batch.project, tab="batches")
        | tab_context
        | {"batch": batch, "progress": progress, "model_problem": model_problem()}
    )


def _rows_page(
    request: SignedInRequest, batch: Batch, counts: selectors.Counts, labels: dict[str, str]
) -> tuple[Page[BatchRow], dict[str, Any]]:
    """The rows in the state that the address asks for; an unknown one asks for all."""
    state = request.GET.get("state", "")
    state = state if state in labels else ""
    rows = selectors.with_drafts(selectors.rows_of(batch, state=state))
    page = Paginator(rows, ROWS_PER_PAGE).get_page(request.GET.get("page"))
    tabs = [
        RowTab(state=key, label=label, num=counts[key] if key else counts.total())
        for key, label in labels.items()
    ]
    return page, {"page": page, "tabs": [tab for tab in tabs if tab.num], "row_state": state}
