"""Headless Chromium of this machine, and the window of one person in it."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from galley.demo import PASSWORD
from galley.install import BROWSERS

FLAGS = [
    "--no-sandbox",  # root in a container has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
DESKTOP, PHONE = 1280, 390
"""Widths in CSS pixels."""
TIMEOUT_MS = 60_000
REFUSED = re.compile(r"status of 4\d\d")

Theme = Literal["light", "dark"]


@contextmanager
def launched() -> Iterator[Browser]:
    """Playwright's own loop runs in this thread while the block lasts: no async test inside it."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise FileNotFoundError(f"no browser among {', '.join(BROWSERS)}: run `make setup-browser`")
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Window:
    """One person at one browser. What the console complains of is kept in `complaints`."""

    def __init__(self, browser: Browser, url: str, *, theme: Theme = "light", width: int = DESKTOP) -> None:
        self.complaints: list[str] = []
        context = browser.new_context(
            base_url=url, color_scheme=theme, viewport={"width": width, "height": 900}
        )
        context.set_default_timeout(TIMEOUT_MS)
        self.page: Page = context.new_page()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(f"{self.page.url}: {error}"))

    def sign_in(self, username: str, password: str = PASSWORD) -> None:
        self.page.goto("/signin/")
        self.page.get_by_label("Username").fill(username)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()

    def said(self, text: str | re.Pattern[str]) -> None:
        """A toast says this."""
        expect(self.page.locator(".toast__text").filter(has_text=text)).to_be_visible()

    def num_pixels_too_wide(self) -> int:
        """By how much the page would scroll sideways."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))

    def close(self) -> None:
        self.page.context.close()

    def _heard(self, message: ConsoleMessage) -> None:
        """Errors and warnings, except the note that Chromium makes of a form that was refused."""
        if message.type in ("error", "warning") and not REFUSED.search(message.text):
            self.complaints.append(f"{self.page.url}: {message.text}")
