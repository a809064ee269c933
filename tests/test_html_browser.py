"""The HTML report in a real browser.

These run where a Chromium is found: the one that ENCODERCHECK_BROWSER names, or one on the PATH.
"""

import os
import shutil

import pytest
from shown import EVERYTHING, HOSTILE, PASSED, UNDECIDED, hostile, report

from encodercheck.render.html import render
from encodercheck.report import Report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FOUND = next(filter(None, map(shutil.which, BROWSERS)), "")
BROWSER = os.environ.get("ENCODERCHECK_BROWSER", FOUND)
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
pytestmark = pytest.mark.skipif(
    not BROWSER, reason="no Chromium is installed; ENCODERCHECK_BROWSER names one elsewhere"
)
PAGES = {
    "passed": [report(PASSED)],
    "everything": [EVERYTHING],
    "several": [EVERYTHING, report(PASSED), report(UNDECIDED)],
    "unreadable": [Report.unreadable("gone.safetensors", "no such file")],
    "hostile": [hostile(HOSTILE), hostile("x" * 300)],
}


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=list(QUIET))
        yield started
        started.close()


@pytest.fixture
def complaints():
    """What the browser said of pages, and what it was asked for: nothing, at the end of a test."""
    heard = []
    yield heard
    assert [text for text in heard if not text.startswith("data:image/png")] == []


@pytest.fixture
def visit(browser, tmp_path, complaints):
    """Open pages from files."""
    contexts = []

    def visited(name, *, width=1100, scheme="light"):
        file = tmp_path / f"{name}.html"
        file.write_text(render(PAGES[name]), encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url))
        page.goto(file.as_uri())
        asked = [url for url in complaints if not url.startswith("data:image/png")]
        assert asked == [file.as_uri()]
        complaints.clear()
        return page

    yield visited
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [320, 360, 768, 1100])
def test_no_page_scrolls_sideways(visit, name, width):
    page = visit(name, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    # Nor is anything cut off that the page would have to scroll to.
    beyond = """[...document.querySelectorAll("main *")].filter(e => {
        const box = e.getBoundingClientRect();
        return box.width && (box.right > innerWidth + 1 || box.left < -1);
    }).map(e => e.outerHTML.slice(0, 120))"""
    assert page.evaluate(beyond) == []


@pytest.mark.parametrize("name", ["everything", "several", "unreadable"])
@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("light", 360),
        ("dark", 1100),
        pytest.param("dark", 360, marks=pytest.mark.slow),
        pytest.param("light", 1100, marks=pytest.mark.slow),
    ],
)
def test_no_rule_of_accessibility_is_broken(visit, name, scheme, width):
    """The rules of WCAG 2.2 AA that axe knows, contrast among them."""
    from axe_playwright_python.sync_playwright import Axe

    page = visit(name, width=width, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true })")
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = Axe().run(page, options={"runOnly": rules})
    broken = [
        f"{rule['id']}: {node['html'][:150]} {node['failureSummary']}"
        for rule in found.response["violations"]
        for node in rule["nodes"]
    ]
    assert broken == []
    passed = {rule["id"] for rule in found.response["passes"]}
    assert {"color-contrast", "heading-order", "svg-img-alt"} - passed <= {"svg-img-alt"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_in_plots_has_contrast_too(visit, scheme):
    """What axe leaves out: SVG text on the surface that its plot lies on."""
    page = visit("everything", scheme=scheme)
    ratios = page.evaluate(
        """() => {
        const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const light = text => {
            const parts = rgb(text).map(v => (v /= 255) <= .04045 ? v / 12.92
                : ((v + .055) / 1.055) ** 2.4);
            return .2126 * parts[0] + .7152 * parts[1] + .0722 * parts[2];
        };
        return [...document.querySelectorAll("svg text")].map(text => {
            let ground = text;
            while (/, 0\\)$|transparent/.test(getComputedStyle(ground).backgroundColor))
                ground = ground.parentElement;
            const pair = [light(getComputedStyle(text).fill),
                          light(getComputedStyle(ground).backgroundColor)].sort((a, b) => b - a);
            return (pair[0] + .05) / (pair[1] + .05);
        });
    }"""
    )
    assert len(ratios) > 10
    assert min(ratios) >= 4.5


def test_labels_in_plots_do_not_touch(visit):
    page = visit("everything", width=360)
    page.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true })")
    touching = page.evaluate(
        """[...document.querySelectorAll("svg.plot")].flatMap(plot => {
        const boxes = [...plot.querySelectorAll("text")].map(t => t.getBoundingClientRect());
        return boxes.filter((a, i) => boxes.some((b, j) => j > i && a.left < b.right + 2
            && b.left < a.right + 2 && a.top < b.bottom && b.top < a.bottom))
            .map(() => plot.querySelector("title").textContent);
    })"""
    )
    assert touching == []


def test_the_keyboard_reaches_what_can_be_opened(visit):
    page = visit("everything")
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        focused = "document.activeElement"
        reached.append(page.evaluate(f"{focused}.tagName + ' ' + {focused}.textContent.trim()"))
        outline = page.evaluate(f"getComputedStyle({focused}).outlineStyle")
        assert outline != "none" or reached[-1].startswith("BODY")
        if reached[-1].startswith("BODY"):
            break
    assert reached[0] == "A Skip to the report"
    assert sum(place.startswith("SUMMARY") for place in reached) >= 7
    # A check that passed is closed, and opens with a key.
    summary = page.locator("details.passed > summary")
    assert not page.locator("details.passed .body").is_visible()
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator("details.passed .body").is_visible()


def test_the_headline_leads_to_its_check(visit):
    page = visit("several")
    page.locator("#model-1").locator("xpath=..").locator(".headline a").click()
    assert page.evaluate("document.querySelector(':target .id').textContent") == "EC202"


def test_paper_is_light_and_shows_what_is_closed(visit, tmp_path):
    page = visit("everything", scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("details.passed .body").is_visible()
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF-") and len(pdf) < 1_000_000


def test_nothing_that_a_name_holds_is_run(visit, complaints):
    page = visit("hostile")
    assert page.evaluate("document.scripts.length") == 0
    # The policy stands before what would get in all the same.
    styled = "<i id=bad style='opacity: 0'>x</i><img src='https://example.org/x.png'>"
    page.evaluate(f'document.body.insertAdjacentHTML("beforeend", "{styled}")')
    assert page.evaluate("getComputedStyle(document.querySelector('#bad')).opacity") == "1"
    assert sum("Content Security Policy directive" in text for text in complaints) >= 2
    complaints.clear()
