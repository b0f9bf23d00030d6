"""Every page as the cast sees it: it opens, it refuses strangers, it says what is wrong."""

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from apps.accounts.models import User
from apps.drafts.models import Draft, DraftState
from apps.projects.models import Brief
from apps.reviews.models import DecisionKind
from apps.tuning.models import Release
from tests.support.batches import a_batch, a_dry_run
from tests.support.cast import Newsroom, Person
from tests.support.factories import a_brief, a_draft, a_queued_draft, a_review, an_adapter, an_approval

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def plain_static_files(settings: Settings) -> None:
    """The manifest is there only after `collectstatic`."""
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = settings.STORAGES | {"staticfiles": plain}


def browser(person: Person) -> Client:
    client = Client()
    client.force_login(person.user)
    return client


def pages_of(room: Newsroom) -> dict[str, str]:
    """The address of every page that belongs to a project."""
    review, adapter, brief = a_review(room), an_adapter(room), a_brief(room)
    project = [room.project.pk]
    return {
        "briefs": reverse("projects:detail", args=project),
        "members": reverse("projects:members", args=project),
        "presets": reverse("styles:list", args=project),
        "preset": reverse("styles:detail", args=[room.preset.pk]),
        "batches": reverse("batches:list", args=project),
        "dry run": reverse("batches:detail", args=[a_dry_run(room).pk]),
        "batch": reverse("batches:detail", args=[a_batch(room).pk]),
        "empty desk": reverse("drafts:desk", args=[brief.pk]),
        "desk": reverse("drafts:desk", args=[review.draft.brief_id]),
        "draft": reverse("drafts:draft", args=[review.draft_id]),
        "review": reverse("reviews:detail", args=[review.pk]),
        "training": reverse("tuning:school", args=project),
        "run": reverse("tuning:run", args=[adapter.run_id]),
    }


def test_every_page_opens_for_every_member(newsroom: Newsroom) -> None:
    pages = pages_of(newsroom)
    for person in (newsroom.ada, newsroom.eli, newsroom.rosa):
        client = browser(person)
        statuses = {name: client.get(path).status_code for name, path in pages.items()}
        assert statuses == dict.fromkeys(pages, 200), person.user


def test_every_page_is_404_for_a_stranger(newsroom: Newsroom) -> None:
    client = browser(newsroom.mallory)
    for name, path in pages_of(newsroom).items():
        assert client.get(path).status_code == 404, name


def test_every_page_asks_for_sign_in(newsroom: Newsroom) -> None:
    for name, path in pages_of(newsroom).items():
        assert Client().get(path).headers["Location"].startswith(reverse("accounts:signin")), name


def test_a_waiting_draft_says_its_place(newsroom: Newsroom) -> None:
    first, second = a_queued_draft(newsroom), a_queued_draft(newsroom)
    pages = [browser(newsroom.rosa).get(reverse("drafts:draft", args=[each.pk])) for each in (first, second)]
    for number, page in enumerate(pages, start=1):
        assert f">number {number} in line\n" in page.content.decode()


def test_a_full_queue_is_told_on_the_page(newsroom: Newsroom, settings: Settings) -> None:
    settings.GALLEY_MAX_QUEUED = 0
    form = {"candidates": 1, "client_request_id": "click-1"}
    page = browser(newsroom.eli).post(reverse("drafts:write", args=[a_brief(newsroom).pk]), form)
    assert (page.status_code, Draft.objects.count()) == (400, 0)
    assert "The queue is full: 0 drafts are waiting." in page.content.decode()


def test_signing_in(newsroom: Newsroom) -> None:
    newsroom.eli.user.set_password("a long enough password")
    newsroom.eli.user.save()
    address, form = reverse("accounts:signin"), {"username": "eli", "password": "a long enough password"}
    assert "do not match" in Client().post(address, form | {"password": "wrong"}).content.decode()
    assert Client().post(address, form).headers["Location"] == reverse("projects:list")


def test_no_page_carries_a_script_or_a_style_of_its_own(newsroom: Newsroom) -> None:
    client = browser(newsroom.ada)
    for name, path in pages_of(newsroom).items():
        html = client.get(path).content.decode()
        assert " style=" not in html, name
        assert " onclick=" not in html, name
        assert html.count("<script") == html.count("<script src=") + html.count(
            '<script type="module" src='
        ) + (html.count('type="application/json"')), name


def test_a_new_project_begins_with_presets(newsroom: Newsroom) -> None:
    response = browser(newsroom.eli).post(reverse("projects:new"), {"name": "Island Weekly"}, follow=True)
    assert response.status_code == 200
    assert response.context["project"].presets.count() == 3


def test_a_taken_project_name_is_said_above_the_form(newsroom: Newsroom) -> None:
    response = browser(newsroom.eli).post(reverse("projects:new"), {"name": newsroom.project.name})
    assert response.status_code == 400
    assert "A project of this name exists" in response.content.decode()


BRIEF = {"subject": "New ferry", "num_words": "80", "must_say": "from May\r\n\r\ntwo boats\r\n"}


def test_a_brief_leads_to_its_desk(newsroom: Newsroom) -> None:
    path = reverse("projects:brief_new", args=[newsroom.project.pk])
    response = browser(newsroom.eli).post(path, BRIEF | {"preset_id": newsroom.preset.pk})
    brief = Brief.objects.get()
    assert response.headers["Location"] == reverse("drafts:desk", args=[brief.pk])
    assert (brief.must_say, brief.must_not_say) == (["from May", "two boats"], [])


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("subject", "", "This field is required."),
        ("subject", "x" * 1_000_000, "at most 300 fit here"),
        ("subject", "a\x07b", "control characters"),
        ("must_say", "a\x00b", "control characters"),
        ("num_words", "5", "Ask for 20 to 2000 words."),
        ("preset_id", "999999", "Select a valid choice."),
    ],
)
def test_what_is_wrong_with_a_brief_stands_at_the_field(
    newsroom: Newsroom, field: str, value: str, error: str
) -> None:
    path = reverse("projects:brief_new", args=[newsroom.project.pk])
    form = BRIEF | {"preset_id": newsroom.preset.pk, field: value}
    response = browser(newsroom.eli).post(path, form)
    assert response.status_code == 400
    assert error in response.context["form"].errors[field][0]
    assert Brief.objects.count() == 0


def test_a_reviewer_does_not_write_briefs(newsroom: Newsroom) -> None:
    path = reverse("projects:brief_new", args=[newsroom.project.pk])
    assert browser(newsroom.rosa).get(path).status_code == 403


def test_a_second_click_on_write_finds_the_first(newsroom: Newsroom) -> None:
    client, brief = browser(newsroom.eli), a_brief(newsroom)
    page = client.get(reverse("drafts:desk", args=[brief.pk]))
    request_id = page.context["form"]["client_request_id"].value()
    form = {"candidates": "3", "client_request_id": request_id}
    for _click in range(2):
        assert client.post(reverse("drafts:write", args=[brief.pk]), form).status_code == 302
    assert Draft.objects.filter(brief=brief).count() == 3


def test_what_a_model_wrote_is_text(newsroom: Newsroom) -> None:
    draft = a_draft(newsroom, text=HOSTILE)
    html = browser(newsroom.eli).get(reverse("drafts:draft", args=[draft.pk])).content.decode()
    assert HOSTILE not in html
    assert "&lt;script&gt;alert(1)" in html


def test_stop_without_a_script(newsroom: Newsroom) -> None:
    draft = a_queued_draft(newsroom)
    assert browser(newsroom.eli).post(reverse("drafts:stop", args=[draft.pk])).status_code == 302
    draft.refresh_from_db()
    assert draft.state == DraftState.FAILED  # not a word was written


def test_submitting_a_text_that_changed_meanwhile_is_refused(newsroom: Newsroom) -> None:
    draft = a_draft(newsroom)
    path = reverse("reviews:submit", args=[draft.pk])
    response = browser(newsroom.eli).post(path, {"revision": "99"}, follow=True)
    assert "changed elsewhere" in response.content.decode()
    draft.refresh_from_db()
    assert draft.state == DraftState.READY


def test_take_the_next_opens_it_and_holds_it(newsroom: Newsroom) -> None:
    review = a_review(newsroom)
    response = browser(newsroom.rosa).post(reverse("reviews:next"))
    assert response.headers["Location"] == reverse("reviews:detail", args=[review.pk])
    review.refresh_from_db()
    assert review.claimed_by == newsroom.rosa.user


def test_nobody_is_offered_their_own_text(newsroom: Newsroom) -> None:
    a_review(newsroom, author=newsroom.ada)
    response = browser(newsroom.ada).post(reverse("reviews:next"), follow=True)
    assert "Nothing waits for you now." in response.content.decode()


def test_approve_with_edits(newsroom: Newsroom) -> None:
    review = a_review(newsroom)
    form = {
        "decision": "approve_with_edits",
        "content_sha256": review.content_sha256,
        "text": f"{review.text}\r\nDoors close at six.",
    }
    browser(newsroom.rosa).post(reverse("reviews:detail", args=[review.pk]), form)
    review.refresh_from_db()
    assert review.decision.decision == DecisionKind.APPROVE_WITH_EDITS
    assert review.decision.text == f"{review.text}\nDoors close at six."


def test_a_rejection_without_a_reason_keeps_what_was_typed(newsroom: Newsroom) -> None:
    review = a_review(newsroom)
    form = {"decision": "reject", "content_sha256": review.content_sha256, "comment": "Not like this."}
    response = browser(newsroom.rosa).post(reverse("reviews:detail", args=[review.pk]), form)
    assert response.status_code == 400
    assert "choose at least one reason" in response.context["form"].errors["reasons"][0]
    assert "Not like this." in response.content.decode()


def test_a_decided_review_shows_the_decision_and_no_form(newsroom: Newsroom) -> None:
    decision = an_approval(newsroom)
    html = browser(newsroom.rosa).get(reverse("reviews:detail", args=[decision.review_id])).content.decode()
    assert 'data-state="approve"' in html
    assert 'id="decision"' not in html


def test_promote_and_roll_back_by_an_admin_only(newsroom: Newsroom) -> None:
    adapter = an_adapter(newsroom)
    promote = reverse("tuning:promote", args=[adapter.pk])
    assert browser(newsroom.eli).post(promote).status_code == 403
    ada = browser(newsroom.ada)
    ada.post(promote)
    assert Release.objects.get().adapter == adapter
    ada.post(reverse("tuning:roll_back", args=[newsroom.project.pk]))
    assert Release.objects.latest("number").adapter is None


def test_a_refused_adapter_says_so_instead_of_offering_promotion(newsroom: Newsroom) -> None:
    adapter = an_adapter(newsroom, gate_passed=False)
    html = browser(newsroom.ada).get(reverse("tuning:school", args=[newsroom.project.pk])).content.decode()
    assert "The gate has refused it." in html
    assert reverse("tuning:promote", args=[adapter.pk]) not in html


def test_train_now_with_too_few_samples_says_how_many_are_missing(newsroom: Newsroom) -> None:
    path = reverse("tuning:start", args=[newsroom.project.pk])
    html = browser(newsroom.ada).post(path, follow=True).content.decode()
    assert "more approved drafts are needed" in html


def test_the_last_admin_stays(newsroom: Newsroom) -> None:
    path = reverse("projects:member_change", args=[newsroom.project.pk])
    form = {"username": "ada", "role": "editor"}
    html = browser(newsroom.ada).post(path, form, follow=True).content.decode()
    assert "A project needs an admin." in html
    assert newsroom.project.role_of(User.objects.get(username="ada")) == "admin"


def test_a_changed_preset_is_a_version_with_its_diff(newsroom: Newsroom) -> None:
    form = {
        "instructions": "Report plainly and briefly.",
        "temperature": "0.4",
        "top_k": "40",
        "top_p": "0.95",
        "min_p": "0",
        "repetition_penalty": "1.05",
        "max_tokens": "512",
        "note": "Shorter",
    }
    path = reverse("styles:detail", args=[newsroom.preset.pk])
    html = browser(newsroom.eli).post(path, form, follow=True).content.decode()
    assert newsroom.preset.current.number == 2
    assert "<del>0.6</del> <ins>0.4</ins>" in html
