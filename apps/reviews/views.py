"""The queue, the review page, and submitting to it."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.accounts.http import SignedInRequest
from apps.common.forms import refusals_on, refusals_said
from apps.projects.pages import in_project
from apps.reviews import selectors, services
from apps.reviews.forms import CommentForm, DecisionForm
from apps.reviews.models import Review


@require_POST
def submit(request: SignedInRequest, draft_id: int) -> HttpResponse:
    revision = request.POST.get("revision", "")
    with refusals_said(request):
        services.submit_draft(
            user=request.user, draft_id=draft_id, revision=int(revision) if revision.isdecimal() else None
        )
        messages.success(request, _("Submitted. Somebody else decides now."))
    return redirect("drafts:draft", draft_id)


@require_GET
def queue(request: SignedInRequest) -> HttpResponse:
    items = selectors.queue(request.user)
    context = {
        "items": items,
        "num_free": sum(not (item.is_own or item.is_held) for item in items),
        "decisions": selectors.recent_decisions(request.user),
    }
    return render(request, "reviews/queue.html", context)


@require_POST
def take_next(request: SignedInRequest) -> HttpResponse:
    review = services.claim_next(user=request.user)
    if review is None:
        messages.info(request, _("Nothing waits for you now."))
        return redirect("reviews:queue")
    return redirect("reviews:detail", review.pk)


@require_POST
def take(request: SignedInRequest, review_id: int) -> HttpResponse:
    with refusals_said(request):
        services.claim_review(user=request.user, review_id=review_id)
        return redirect("reviews:detail", review_id)
    return redirect("reviews:queue")


@require_POST
def release(request: SignedInRequest, review_id: int) -> HttpResponse:
    services.release_review(user=request.user, review_id=review_id)
    return redirect("reviews:queue")


@require_http_methods(["GET", "POST"])
def review_page(request: SignedInRequest, review_id: int) -> HttpResponse:
    review = services.review_for(request.user, review_id)
    if request.method == "GET":
        form = DecisionForm(initial={"content_sha256": review.content_sha256, "text": review.text})
        return _page(request, review, form)
    form = DecisionForm(request.POST)
    if form.is_valid():
        with refusals_on(form):
            services.decide(user=request.user, review_id=review.pk, decision=form.to_input())
            subject = review.draft.brief.subject
            messages.success(request, _("Your decision is kept: %(subject)s") % {"subject": subject})
            return redirect("reviews:queue")
    return _page(request, review, form, status=400)


@require_POST
def comment(request: SignedInRequest, review_id: int) -> HttpResponse:
    form = CommentForm(request.POST)
    if form.is_valid():
        with refusals_said(request):
            services.add_comment(user=request.user, review_id=review_id, text=form.cleaned_data["text"])
    return redirect("reviews:detail", review_id)


def _page(request: SignedInRequest, review: Review, form: DecisionForm, *, status: int = 200) -> HttpResponse:
    draft = review.draft
    context = in_project(request.user, draft.brief.project) | {
        "review": review,
        "draft": draft,
        "brief": draft.brief,
        "form": form,
        "decision": getattr(review, "decision", None),
        "why_not": selectors.why_not(request.user, review),
        "comments": review.comments.select_related("author"),
        "earlier": draft.reviews.filter(round__lt=review.round).select_related("decision__decided_by"),
    }
    return render(request, "reviews/review.html", context, status=status)
