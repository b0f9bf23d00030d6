"""A batch in a real browser, written by the model that ships: file, dry run, progress, results."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from galley.demo import PROJECT
from tests.support.browser import PHONE, Window, launched
from tests.support.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.model]

FILE = """Headline;Key facts;Word count
Night buses return to Mill Lane;it begins on 3 June;40
A bakery reopens on Quay Road;it opens at six;40
The town band turns ninety;the concert is free;many
Volunteers plant trees in Orchard Park;120 trees;40
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of this module alone: see `launched` about async tests."""
    with launched() as browser:
        yield browser


def test_a_file_becomes_texts(stack: Stack, browser: Browser, tmp_path: Path) -> None:
    window = Window(browser, stack.url, width=PHONE, theme="dark")
    window.sign_in("eli")
    page = window.page
    page.get_by_role("link", name=PROJECT).click()
    page.get_by_role("link", name="Batches").click()
    page.get_by_role("link", name="New batch").first.click()

    (tmp_path / "spring.csv").write_text(FILE)
    page.get_by_label("File", exact=True).set_input_files(tmp_path / "spring.csv")
    page.get_by_role("button", name="Check the file").click()
    expect(page.get_by_label("Subject")).to_have_value("Headline")
    expect(page.get_by_text("Word count: “many” is not a whole number.")).to_be_visible()
    assert window.num_pixels_too_wide() == 0

    page.get_by_role("button", name="Start: write 3 rows").dblclick()
    expect(page.locator('#batch[data-batch-state="done"]')).to_be_visible()
    expect(page.get_by_text("All 3 rows are written.")).to_be_visible()
    assert window.num_pixels_too_wide() == 0
    with page.expect_download() as download:
        page.get_by_role("link", name="Results as CSV").click()
    text = download.value.path().read_text(encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["row_state"] for row in rows] == ["ready", "ready", "refused", "ready"]
    assert [bool(row["text"]) for row in rows] == [True, True, False, True]

    page.get_by_role("link", name="Read Night buses").click()
    expect(page.get_by_text("Row 1 of the batch “spring”")).to_be_visible()
    assert window.complaints == []
    window.close()
