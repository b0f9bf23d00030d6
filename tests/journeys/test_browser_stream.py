"""A draft that streams into a real browser: reloads, silence and falsified frames lose no letter of it."""

import json
import random
from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from galley.demo import PROJECT
from galley.story import Client
from tests.support.browser import Window, launched
from tests.support.stack import Stack, running_stack

pytestmark = pytest.mark.browser

NUM_WORDS, WORDS_PER_SECOND = 240, 40
CATCH_UP_MS = 5000
# Functions, because the pages' own policy forbids to evaluate sentences.
SHOWN = """() => [...document.querySelectorAll("[data-draft]:not([hidden]) [data-manuscript] > p")]
    .map((each) => each.textContent).join("\\n\\n")"""
HAS_WORDS = f"(count) => ({SHOWN})().split(' ').length >= count"
IS_LONGER = f"(length) => ({SHOWN})().length > length"
IS_READY = """() => document.querySelector("[data-draft]:not([hidden])")?.dataset.state === "ready\""""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An engine without weights, at the speed of a reader."""
    model = f"fake:?tokens_per_second={WORDS_PER_SECOND}&num_tokens={NUM_WORDS}"
    with running_stack(tmp_path_factory.mktemp("galley") / "home", GALLEY_MODEL=model) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of this module alone: see `launched` about async tests."""
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def editor(stack: Stack) -> Iterator[Client]:
    with closing(Client(stack.url, stack.token("eli"))) as program:
        yield program


@pytest.fixture
def eli(stack: Stack, browser: Browser) -> Iterator[Window]:
    window = Window(browser, stack.url)
    window.sign_in("eli")
    expect(window.page.get_by_role("link", name=PROJECT)).to_be_visible()
    yield window
    assert window.complaints == []
    window.close()


def asked_for(editor: Client) -> int:
    """A draft that a worker begins to write."""
    project = next(each["id"] for each in editor.get("/projects") if each["name"] == PROJECT)
    preset = editor.get(f"/projects/{project}/presets")[0]["id"]
    brief = editor.post(
        f"/projects/{project}/briefs", subject="Night buses return to Mill Lane", preset_id=preset
    )
    [draft] = editor.post(f"/briefs/{brief['id']}/drafts", candidates=1)["drafts"]
    return int(draft["id"])


def shown_when_ready(page: Page) -> str:
    page.wait_for_function(IS_READY)
    expect(page.locator("[data-manuscript]")).not_to_have_attribute("aria-hidden", "true")
    return str(page.evaluate(SHOWN))


def wait_for_words(page: Page, count: int) -> None:
    page.wait_for_function(HAS_WORDS, arg=count)


@pytest.mark.parametrize("num_reloads", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_after_a_reload_the_text_stands_where_it_stood_and_goes_on(
    eli: Window, editor: Client, num_reloads: int
) -> None:
    """A reload shows at least what was shown, and nothing that is not stored in the end."""
    draw, left = random.Random(num_reloads), num_reloads
    while left > 0:
        draft_id = asked_for(editor)
        eli.page.goto(f"/drafts/{draft_id}/")
        looks: list[str] = []
        for _ in range(min(left, 10)):
            wait_for_words(eli.page, 2 if not looks else len(looks[-1].split()))
            eli.page.wait_for_timeout(draw.uniform(0, 300))
            looks.append(eli.page.evaluate(SHOWN))
            eli.page.reload()
        left -= 10

        final = shown_when_ready(eli.page)

        assert final == editor.get(f"/drafts/{draft_id}")["generated_text"]
        assert len(final.split()) == NUM_WORDS
        assert all(final.startswith(look) for look in looks)


def test_what_arrives_falsified_is_asked_for_again(eli: Window, editor: Client) -> None:
    """The stored text has its hash; a text that was changed under way has another."""
    cursors = []

    def interpose(route: WebSocketRoute) -> None:
        cursors.append(route.url.partition("after=")[2])
        server = route.connect_to_server()
        server.on_message(lambda text: route.send(falsified(text) if len(cursors) == 1 else text))

    eli.page.route_web_socket("**/ws/drafts/**", interpose)
    draft_id = asked_for(editor)
    eli.page.goto(f"/drafts/{draft_id}/")

    final = shown_when_ready(eli.page)

    assert cursors == ["0.0", "1.0"]
    assert final == editor.get(f"/drafts/{draft_id}")["generated_text"]
    expect(eli.page.locator(".toast__text").filter(has_text="differs")).to_have_count(0)


def test_what_arrives_falsified_every_time_is_said(eli: Window, editor: Client) -> None:
    def interpose(route: WebSocketRoute) -> None:
        server = route.connect_to_server()
        server.on_message(lambda text: route.send(falsified(text)))

    eli.page.route_web_socket("**/ws/drafts/**", interpose)
    eli.page.goto(f"/drafts/{asked_for(editor)}/")

    shown_when_ready(eli.page)

    eli.said("What arrived differs from what is stored")


def falsified(text: str | bytes) -> str:
    message = json.loads(text)
    if message["type"] == "chunk":
        message["text"] = message["text"].replace("e", "3")
    return json.dumps(message)


def test_a_network_that_is_back_is_used_at_once(eli: Window, editor: Client) -> None:
    """The old connection looks open and is silent: nobody waits for the watchdog to notice."""
    num_connections = 0

    def interpose(route: WebSocketRoute) -> None:
        nonlocal num_connections
        num_connections += 1
        is_dead, num_chunks = num_connections == 1, 0
        server = route.connect_to_server()

        def forward(text: str | bytes) -> None:
            nonlocal num_chunks
            num_chunks += '"chunk"' in str(text)
            if not is_dead or num_chunks < 5:
                route.send(text)

        server.on_message(forward)

    eli.page.route_web_socket("**/ws/drafts/**", interpose)
    draft_id = asked_for(editor)
    eli.page.goto(f"/drafts/{draft_id}/")
    wait_for_words(eli.page, 2)
    eli.page.wait_for_timeout(2000)
    before = eli.page.evaluate(SHOWN)
    eli.page.wait_for_timeout(500)
    assert eli.page.evaluate(SHOWN) == before, "the connection is dead"

    eli.page.evaluate("dispatchEvent(new Event('online'))")

    eli.page.wait_for_function(IS_LONGER, arg=len(before), timeout=3000)
    assert shown_when_ready(eli.page) == editor.get(f"/drafts/{draft_id}")["generated_text"]
    assert num_connections == 2


def catch_up(page: Page, text: str) -> None:
    """Within the second or two that a tab may be behind another one, it shows this text, or more."""
    page.wait_for_function(f"(text) => ({SHOWN})().startsWith(text)", arg=text, timeout=CATCH_UP_MS)


@pytest.mark.parametrize("num_reloads", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_tab_that_is_reloaded_shows_what_its_twin_and_a_colleague_see(
    eli: Window, stack: Stack, browser: Browser, editor: Client, num_reloads: int
) -> None:
    colleague = Window(browser, stack.url)
    colleague.sign_in("rosa")
    expect(colleague.page.get_by_role("link", name=PROJECT)).to_be_visible()
    twin, elsewhere = eli.page.context.new_page(), eli.page.context.new_page()
    other_id = asked_for(editor)
    elsewhere.goto(f"/drafts/{other_id}/")
    for _ in range(-(-num_reloads // 3)):
        draft_id = asked_for(editor)
        pages = (eli.page, twin, colleague.page)
        for page in pages:
            page.goto(f"/drafts/{draft_id}/")
        wait_for_words(twin, 5)
        for _ in range(3):
            eli.page.reload()
            catch_up(eli.page, twin.evaluate(SHOWN))
            catch_up(colleague.page, eli.page.evaluate(SHOWN))

        shown = [shown_when_ready(page) for page in pages]

        stored = editor.get(f"/drafts/{draft_id}")["generated_text"]
        assert shown == [stored] * len(pages)
    other = shown_when_ready(elsewhere)
    assert other == editor.get(f"/drafts/{other_id}")["generated_text"] != stored
    assert colleague.complaints == []
    colleague.close()


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_offline_and_back_goes_on_after_the_last_word(
    stack: Stack, browser: Browser, editor: Client, seconds: int
) -> None:
    window = Window(browser, stack.url)
    window.sign_in("eli")
    expect(window.page.get_by_role("link", name=PROJECT)).to_be_visible()
    addresses: list[str] = []
    window.page.on("websocket", lambda socket: addresses.append(socket.url))
    draft_id = asked_for(editor)
    window.page.goto(f"/drafts/{draft_id}/")
    wait_for_words(window.page, 5)
    window.page.context.set_offline(True)
    window.page.wait_for_timeout(500)
    before = window.page.evaluate(SHOWN)
    window.page.wait_for_timeout(1000 * seconds)
    assert window.page.evaluate(SHOWN) == before, "the browser is offline"

    window.page.context.set_offline(False)

    window.page.wait_for_function(IS_LONGER, arg=len(before), timeout=CATCH_UP_MS)
    assert shown_when_ready(window.page) == editor.get(f"/drafts/{draft_id}")["generated_text"]
    cursors = [address.partition("after=")[2] for address in addresses]
    assert cursors[0] == "0.0" and "0.0" not in cursors[1:], "it asked for what it had not seen"
    assert all("ERR_INTERNET_DISCONNECTED" in complaint for complaint in window.complaints)
    window.close()
