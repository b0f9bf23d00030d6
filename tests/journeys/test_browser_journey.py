"""What the README promises, done by three people in a real browser.

Brief, streamed draft, review, training on the decision, gate, promotion, a draft written with it, roll back.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from galley.demo import PROJECT
from galley.story import CLOSING, DATELINE, Client, house_rule
from tests.support.browser import PHONE, Theme, Window, launched
from tests.support.slow import slow_engine
from tests.support.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.model]

SUBJECT = "Night buses return to Mill Lane"
FACTS = ["it begins on 3 June", "the work cost 43 euros", "Petra Novak"]
# So many and so short: on few long texts the gate's distance is more chance than house rule.
MORE_SUBJECTS = [
    f"{what} {where}"
    for what in ("A night market", "A chess match", "The tree planting", "A bakery reopens", "Repairs")
    for where in ("on Quay Road", "at the harbour", "in Orchard Park", "near the town hall", "on Mill Lane")
]
NUM_WORDS = 40
PEOPLE = ("Ines Calder", "Tomas Reed", "Petra Novak", "Samuel Okoye", "Lena Fischer")
SEED = 300
"""Of the first of a row of drafts: the journey is the same every time."""
TRAINING_TIMEOUT_MS = 20 * 60_000
LOOK = """
    (min_chars) => {
      const candidate = document.querySelector("[data-draft]:not([hidden])");
      const paragraphs = [...(candidate?.querySelectorAll("[data-manuscript] > p") ?? [])];
      const text = paragraphs.map((each) => each.textContent).join("\\n\\n");
      return candidate && text.length >= min_chars && { state: candidate.dataset.state, text };
    }
"""


class Look(NamedTuple):
    """What stands on the open candidate's sheet at one moment."""

    state: str
    text: str


class Adapter(NamedTuple):
    name: str
    short_hash: str


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of this module alone: see `launched` about async tests."""
    with launched() as browser:
        yield browser


@pytest.fixture
def editor(stack: Stack) -> Iterator[Client]:
    with closing(Client(stack.url, stack.token("eli"))) as program:
        yield program


@pytest.fixture
def reviewer(stack: Stack) -> Iterator[Client]:
    with closing(Client(stack.url, stack.token("rosa"))) as program:
        yield program


def test_a_wrong_password_is_said(stack: Stack, browser: Browser) -> None:
    window = Window(browser, stack.url)

    window.sign_in("eli", "galley-dmeo")

    expect(window.page.get_by_role("alert")).to_contain_text("do not match")
    expect(window.page.get_by_label("Username")).to_have_value("eli")
    window.close()


def test_a_decision_teaches_the_next_draft(
    stack: Stack, browser: Browser, editor: Client, reviewer: Client
) -> None:
    eli, rosa, ada = (_signed_in(browser, stack, username) for username in ("eli", "rosa", "ada"))

    desk = _write_a_brief(eli.page)
    _watch_two_candidates(eli.page, stack, editor)
    submitted = _edit_and_submit(eli)
    review = _approve_with_edits(rosa, submitted)
    _approve_more(editor, reviewer)
    run = _train(ada.page)
    adapter = _promote(ada)

    passport = _write_again(eli.page, desk)
    expect(passport).to_contain_text(adapter.name)
    expect(passport).to_contain_text(adapter.short_hash)

    _roll_back(ada)
    passport = _write_again(eli.page, desk)
    expect(passport).to_contain_text("Base model")
    expect(passport).not_to_contain_text("Adapter")

    assert [window.complaints for window in (eli, rosa, ada)] == [[], [], []]
    pages = ["/", "/reviews/", desk, review, run, *_pages_of_the_project(ada.page)]
    for theme in ("light", "dark"):
        _fit_a_phone(browser, stack, theme, pages)


# --- Eli writes ------------------------------------------------------------------------------------


def _write_a_brief(page: Page) -> str:
    """Returns the address of the brief's desk."""
    page.get_by_role("link", name=PROJECT).click()
    page.get_by_role("link", name="New brief").click()
    page.get_by_label("Audience").fill("people around Mill Lane")
    page.get_by_label("Must say", exact=True).fill("\n".join(FACTS))
    save = page.get_by_role("button", name="Save and go to the desk")
    save.click()

    subject = page.get_by_label("Subject")
    expect(subject).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".field__error")).to_have_count(1)
    expect(page.get_by_label("Audience")).to_have_value("people around Mill Lane")
    expect(page.get_by_label("Must say", exact=True)).to_have_value("\n".join(FACTS))

    subject.fill(SUBJECT)
    save.click()
    expect(page.get_by_role("heading", name=SUBJECT)).to_be_visible()
    return _path(page)


def _watch_two_candidates(page: Page, stack: Stack, editor: Client) -> None:
    """Both grow while they are watched; a reload changes nothing; the second is stopped half-way."""
    with slow_engine(stack):
        page.get_by_label("Candidates").fill("2")
        page.get_by_label("Seed").fill(str(SEED))
        page.get_by_role("button", name="Write", exact=True).click()
        looks = [_look(page)]
        looks.append(_look(page, min_chars=len(looks[-1].text) + 1))
        page.reload()
        looks.append(_look(page, min_chars=len(looks[-1].text)))
        looks.append(_look(page, min_chars=len(looks[-1].text) + 1))
        page.get_by_role("tab", name="Candidate 2").click()
        stopped = _look(page)
        page.get_by_role("button", name="Stop").click()
        expect(_open_candidate(page).locator(".chip").first).to_have_text("Stopped")
    kept = _stored(page, editor)
    assert kept["text"].startswith(stopped.text)
    assert _look(page).text.split() == kept["text"].split()

    page.get_by_role("tab", name="Candidate 1").click()
    expect(_open_candidate(page).locator(".chip").first).to_have_text("Ready")
    final = _stored(page, editor)["text"]
    assert [look.state for look in looks] == ["writing"] * 4
    assert all(final.startswith(look.text) for look in looks)
    assert len(kept["text"]) < len(final)


def _edit_and_submit(eli: Window) -> str:
    """Eli puts the dateline before the draft; returns the text as submitted."""
    page, candidate = eli.page, _open_candidate(eli.page)
    candidate.get_by_role("button", name="Edit").click()
    text = candidate.get_by_role("textbox", name="Text of the draft")
    text.fill(DATELINE + text.input_value())
    expect(candidate.locator("[data-save]")).to_have_text("Saved")
    submitted = text.input_value()

    candidate.get_by_role("button", name="Submit for review").click()

    eli.said("Submitted")
    expect(_open_candidate(page).locator(".chip").first).to_have_text("In review")
    return submitted


def _write_again(page: Page, desk: str) -> Locator:
    """One more draft of the same brief; returns its passport."""
    page.goto(desk)
    page.get_by_role("button", name="Write again").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Candidates").fill("1")
    dialog.get_by_role("button", name="Write", exact=True).click()
    expect(_open_candidate(page).locator(".chip").first).to_have_text("Ready")
    return _open_candidate(page).locator("details", has_text="Passport")


# --- Rosa decides ----------------------------------------------------------------------------------


def _approve_with_edits(rosa: Window, submitted: str) -> str:
    """Returns the address of the review."""
    page = rosa.page
    page.get_by_role("link", name="Review").click()
    page.get_by_role("button", name="Take the next").click()
    expect(page.get_by_role("heading", name=SUBJECT)).to_be_visible()
    expect(page.locator("[data-pane=changes] ins")).to_contain_text(DATELINE.strip())
    expect(page.get_by_text("1 change", exact=True)).to_be_visible()
    review = _path(page)

    page.get_by_role("button", name="Edit", exact=True).click()
    text = page.get_by_role("textbox", name="Text with your edits")
    expect(text).to_have_value(submitted)
    text.fill(f"{submitted}\n\n{CLOSING}")
    expect(page.get_by_role("button", name="Approve", exact=True)).to_be_disabled()
    page.get_by_role("button", name="Approve with edits").click()

    rosa.said(f"Your decision is kept: {SUBJECT}")
    expect(page.get_by_role("listitem").filter(has_text="Approved with edits").first).to_contain_text(SUBJECT)
    return review


def _approve_more(editor: Client, reviewer: Client) -> None:
    """What people would have decided in the days before, by the same rule."""
    project = next(each["id"] for each in editor.get("/projects") if each["name"] == PROJECT)
    news = next(each["id"] for each in editor.get(f"/projects/{project}/presets") if each["kind"] == "news")
    for number, subject in enumerate(MORE_SUBJECTS):
        person = PEOPLE[number % len(PEOPLE)]
        facts = [f"the work cost {17 + 13 * number} euros", f"it begins on {1 + number} June", person]
        brief = editor.post(
            f"/projects/{project}/briefs",
            subject=subject,
            preset_id=news,
            must_say=facts,
            num_words=NUM_WORDS,
        )
        [draft] = editor.post(f"/briefs/{brief['id']}/drafts", candidates=1, seed=SEED + number)["drafts"]
        for _event in editor.events(f"/drafts/{draft['id']}/events"):
            pass  # the stream ends with the draft
        editor.post(
            f"/drafts/{draft['id']}/submit", revision=editor.get(f"/drafts/{draft['id']}")["revision"]
        )
    while review := reviewer.post("/reviews/claim", project_id=project):
        reviewer.post(
            f"/reviews/{review['id']}/decision",
            decision="approve_with_edits",
            text=house_rule(review["text"]),
            content_sha256=review["content_sha256"],
        )


# --- Ada trains, promotes and rolls back -----------------------------------------------------------


def _train(page: Page) -> str:
    """Follows the run on its page, without a reload of ours; returns the page's address."""
    page.get_by_role("link", name=PROJECT).click()
    page.get_by_role("link", name="Training").click()
    usable = page.locator(".figure", has_text="usable approved drafts").locator("dd")
    assert int(usable.inner_text()) > len(MORE_SUBJECTS)
    page.get_by_role("button", name="Train now").click()

    progress = page.locator("#run-progress")
    expect(progress.locator(".chip")).to_have_text("Running")
    expect(progress.get_by_role("progressbar")).not_to_have_attribute(
        "value", "0", timeout=TRAINING_TIMEOUT_MS
    )
    expect(progress.locator(".chip")).to_have_text("Done", timeout=TRAINING_TIMEOUT_MS)
    gate = page.get_by_role("region", name="Gate of")
    expect(gate).to_be_visible()  # it comes by itself a moment later
    verdicts = gate.get_by_role("row").locator(".chip").all_inner_texts()
    assert set(verdicts) == {"passed"}, gate.inner_text()
    num_steps = int(progress.get_by_role("progressbar").get_attribute("max") or 0)
    page.get_by_text("As a table").click()
    expect(page.locator("[data-chart-table] tr")).to_have_count(num_steps)
    return _path(page)


def _promote(ada: Window) -> Adapter:
    """From the run's page; returns what the page says that it makes live."""
    page = ada.page
    gate = page.get_by_role("region", name="Gate of")
    adapter = Adapter(
        name=gate.get_by_role("heading").first.inner_text().removeprefix("Gate of "),
        short_hash=gate.locator("dt", has_text="Adapter").locator("+ dd").inner_text(),
    )
    page.get_by_role("button", name="Promote").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Promote")
    dialog.get_by_role("button", name="Promote").click()

    ada.said(f"{adapter.name} is live")
    expect(page.locator(".live__name")).to_have_text(adapter.name)
    return adapter


def _roll_back(ada: Window) -> None:
    page = ada.page
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()

    ada.said("Base model is live again")
    expect(page.locator(".live__name")).to_have_text("Base model")


# --- every page ------------------------------------------------------------------------------------


def _pages_of_the_project(page: Page) -> list[str]:
    """What the tabs lead to, and the forms behind them."""
    tabs = page.locator("nav.tabs a").evaluate_all("links => links.map((link) => link.pathname)")
    project = tabs[0]
    return [*tabs, f"{project}briefs/new/", f"{project}presets/new/", "/presets/1/", "/projects/new/"]


def _fit_a_phone(browser: Browser, stack: Stack, theme: Theme, pages: list[str]) -> None:
    window = _signed_in(browser, stack, "ada", theme=theme, width=PHONE)
    widths = {}
    for path in pages:
        window.page.goto(path)
        expect(window.page.locator("html")).to_have_attribute("data-theme", theme)
        widths[path] = window.num_pixels_too_wide()
    assert widths == dict.fromkeys(pages, 0)
    assert window.complaints == []
    window.close()


# --- small ones ------------------------------------------------------------------------------------


def _signed_in(browser: Browser, stack: Stack, username: str, **look: Any) -> Window:
    window = Window(browser, stack.url, **look)
    window.sign_in(username)
    expect(window.page.get_by_role("heading", name="Projects")).to_be_visible()
    return window


def _open_candidate(page: Page) -> Locator:
    return page.locator("[data-draft]:not([hidden])")


def _look(page: Page, *, min_chars: int = 1) -> Look:
    """The first look that finds at least so many characters."""
    return Look(**page.wait_for_function(LOOK, arg=min_chars).json_value())


def _stored(page: Page, editor: Client) -> Any:
    return editor.get(f"/drafts/{_open_candidate(page).get_attribute('data-draft')}")


def _path(page: Page) -> str:
    return str(page.evaluate("location.pathname"))
