"""The page in a browser, as its reader uses it."""

from __future__ import annotations

import os
import shutil

import pytest

import agevi
from tests.report.conftest import HOSTILE

pytestmark = pytest.mark.slow  # a browser starts

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = os.environ.get("AGEVI_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
WIDTHS = {"phone": 390, "tablet": 768, "screen": 1280}


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium is on PATH; .ci/run says so")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(study, hostile, saved_clock, tmp_path_factory):
    """Address of each page by name."""
    folder = tmp_path_factory.mktemp("pages")
    sources = {"study": study, "hostile": hostile, "clock": saved_clock[0]}
    return {name: agevi.report(source, folder / f"{name}.html").as_uri() for name, source in sources.items()}


class Opened:
    """A page with what went wrong in it, and what it asked for."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(**options)
        self.problems, self.requests = [], []
        self.page = self.context.new_page()
        self.page.on(
            "console", lambda said: self.problems.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.problems.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)

    def column(self, name, number):
        return self.page.locator(f"#{name} tbody tr:visible > :nth-child({number})").all_inner_texts()


@pytest.fixture
def opened(browser, pages):
    """Opens a page, and closes it at the end."""
    made = []

    def page(name, **options):
        made.append(Opened(browser, pages[name], **options))
        return made[-1]

    yield page
    for one in made:
        one.context.close()


@pytest.mark.parametrize("name", ["study", "hostile", "clock"])
def test_pages_open_without_an_error_and_ask_for_nothing(opened, pages, name):
    found = opened(name)
    found.page.mouse.wheel(0, 10_000)
    assert found.problems == [] and found.requests == [pages[name]]


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("name", ["study", "hostile", "clock"])
def test_pages_do_not_scroll_sideways(opened, name, width):
    page = opened(name, viewport={"width": width, "height": 844}).page
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_head_sorts_its_column_up_and_down(opened):
    page = opened("study")
    head = page.page.locator("#subjects th", has_text="Predicted")
    number = page.page.locator("#subjects thead th").all_inner_texts().index(head.inner_text()) + 1
    before = page.column("subjects", number)
    head.get_by_role("button").click()
    values = [float(text) for text in page.column("subjects", number)]
    assert values == sorted(values) and head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").press("Enter")
    assert [float(text) for text in page.column("subjects", number)] == values[::-1]
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").click()
    assert page.column("subjects", number) == before and head.get_attribute("aria-sort") is None
    assert page.problems == []


def test_a_search_leaves_the_rows_with_its_words(opened, study):
    page = opened("study")
    name = agevi.get.subjects_df(study)["subject"].iloc[3]
    page.page.locator("#subjects").get_by_label("Search").fill(name.upper())
    assert page.column("subjects", 1) == [name]
    assert page.page.locator("#subjects .count").inner_text() == "1 of 32 rows"
    page.page.locator("#subjects").get_by_label("Search").fill("")
    assert len(page.column("subjects", 1)) == 32


def test_a_copied_table_holds_values_and_runs_nothing_in_a_spreadsheet(opened, hostile):
    page = opened("hostile", permissions=["clipboard-read", "clipboard-write"]).page
    page.locator("#subjects .copy-table").click()
    page.locator("#subjects .copy-table", has_text="Copied").wait_for()
    lines = [line.split("\t") for line in page.evaluate("navigator.clipboard.readText()").strip().split("\n")]
    wanted = agevi.get.subjects_df(hostile)
    assert len(lines) == len(wanted) + 1 and {len(line) for line in lines} == {len(lines[0])}
    names = {line[0] for line in lines[1:]}
    assert "'=cmd()" in names and "=cmd()" not in names and HOSTILE[0] in names
    predicted = sorted(float(line[lines[0].index("Predicted")]) for line in lines[1:])
    assert predicted == pytest.approx(sorted(wanted["predicted"]), rel=1e-4)


def test_cells_copied_by_hand_run_nothing_either(opened):
    page = opened("hostile", permissions=["clipboard-read", "clipboard-write"]).page
    page.evaluate("""() => {
        const cell = [...document.querySelectorAll("#subjects th")].find((one) => one.textContent === "=cmd()");
        getSelection().selectAllChildren(cell.parentElement);
    }""")
    page.keyboard.press("Control+C")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.lstrip().startswith("'=cmd()")


def test_keys_alone_reach_what_can_be_done(opened):
    page = opened("study").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.tagName"))
    assert {"A", "BUTTON", "INPUT", "DIV"} <= seen


def test_without_a_script_the_page_is_whole(opened):
    page = opened("study", java_script_enabled=False).page
    assert page.locator("#subjects tbody tr").count() == 32
    assert not page.locator("button:visible").count() and not page.locator("input:visible").count()


def test_printed_tables_have_heads_without_buttons(opened):
    page = opened("study").page
    page.evaluate(
        "addEventListener('beforeprint', () => { window.printed = document.querySelectorAll('th button').length; })"
    )
    page.pdf(print_background=True)
    assert page.evaluate("window.printed") == 0
    assert page.locator("#subjects th button").count() > 5
