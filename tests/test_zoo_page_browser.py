"""The page of many models in a real browser.

These run where a Chromium is found: the one that ENCODERCHECK_BROWSER names, or one on the PATH.
"""

import pytest
from test_html_browser import BROWSER, browser, complaints
from test_zoo_page import HOSTILE, row
from zoos import FAILED, PASSED, UNDECIDED, report, some

from encodercheck.render import zoo_page

__all__ = ["browser", "complaints"]
pytestmark = pytest.mark.skipif(
    not BROWSER, reason="no Chromium is installed; ENCODERCHECK_BROWSER names one elsewhere"
)
MANY = 5000
# Busy machines are slow ones; on an idle one it is a tenth of a second, and less.
SMOOTH_MS = 500
STATUS = "document.getElementById('shown').textContent"


def _models(count):
    names = ("resnet50", "vit_base", "convnext")
    for number in range(count):
        finding = FAILED if number % 50 == 0 else UNDECIDED if number % 50 == 1 else PASSED
        architecture = names[number % 3]
        yield report(
            finding,
            path=f"hf://acme/{architecture}-{number}",
            architecture=architecture,
            parameters=(number * 7919) % 1000 * 1000,
        )


PAGES = {
    "some": lambda: list(_models(120)),
    "many": lambda: list(_models(MANY)),
    "one": lambda: some(1),
    "hostile": lambda: [report(FAILED, path=HOSTILE, architecture=HOSTILE), *some(2)],
    "long": lambda: [report(FAILED, path="x" * 400, architecture="y" * 400)],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write each page once."""
    folder, written = tmp_path_factory.mktemp("pages"), {}

    def file(name):
        if name not in written:
            facts = zoo_page.Facts("zoo")
            reports = PAGES[name]()
            for made in reports:
                facts.add(made, "2026-11-20T10:00:00+00:00")
            rows = [row(made, "reports/a/report.html") for made in reports]
            written[name] = folder / f"{name}.html"
            written[name].write_text(zoo_page.render(rows, facts), encoding="utf-8")
        return written[name]

    return file


@pytest.fixture
def visit(browser, files, complaints):
    """Open pages from files, without a network."""
    contexts = []

    def visited(name, *, width=1200, scheme="light", fragment="", scripts=True):
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=scheme,
            offline=True,
            java_script_enabled=scripts,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url))
        page.goto(files(name).as_uri() + fragment)
        assert complaints == [files(name).as_uri()]
        complaints.clear()
        return page

    yield visited
    for context in contexts:
        context.close()


def _names(page):
    return page.locator("#models tbody th").all_inner_texts()


def _eventually(page, expression):
    # The page's policy forbids the browser's own way to wait for an expression.
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(expression)


@pytest.mark.parametrize("name", ["some", "one", "hostile", "long"])
@pytest.mark.parametrize("width", [320, 1200])
def test_no_page_scrolls_sideways(visit, name, width):
    page = visit(name, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_no_rule_of_accessibility_is_broken(visit, scheme, width):
    """The rules of WCAG 2.2 AA that axe knows, contrast among them."""
    from axe_playwright_python.sync_playwright import Axe

    page = visit("some", width=width, scheme=scheme, fragment="#verdict=failed,none")
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = Axe().run(page, options={"runOnly": rules})
    broken = [
        f"{rule['id']}: {node['html'][:150]} {node['failureSummary']}"
        for rule in found.response["violations"]
        for node in rule["nodes"]
    ]
    assert broken == []
    assert "color-contrast" in {rule["id"] for rule in found.response["passes"]}


def test_search_by_name_architecture_and_check(visit):
    page = visit("some")
    assert page.evaluate(STATUS) == "120 models"
    page.fill("#search", "RESNET50-0")
    assert _names(page) == ["hf://acme/resnet50-0"]
    assert page.evaluate(STATUS) == "1 of 120 models"
    page.fill("#search", "vit_base ec202")
    assert _names(page) == ["hf://acme/vit_base-100"]
    page.fill("#search", "no such model")
    assert page.evaluate(STATUS) == "None of 120 models"
    page.click("#reset")
    assert page.evaluate(STATUS) == "120 models"
    assert page.evaluate("document.activeElement.id") == "search"


def test_filter_by_verdict(visit):
    page = visit("some")
    page.click(".tiles .failed button")
    assert page.evaluate(STATUS) == "3 of 120 models"
    page.click(".tiles .inconclusive button")
    assert page.evaluate(STATUS) == "6 of 120 models"
    assert page.locator("[aria-pressed=true]").count() == 2
    page.click(".tiles .failed button")
    assert page.evaluate(STATUS) == "3 of 120 models"
    assert set(page.locator("#models .badge").all_inner_texts()) == {"? no verdict"}


@pytest.mark.parametrize("column", ["Model", "Worst check", "Architecture", "Parameters", "Time"])
def test_every_column_sorts_both_ways(visit, column):
    page = visit("some")
    place = page.locator("#models thead th").all_inner_texts().index(column)
    cells = f"#models tbody tr > :nth-child({place + 1})"
    page.click(f".sort:text-is('{column}')")
    up = [text for text in page.locator(cells).all_inner_texts() if text]
    page.click(f".sort:text-is('{column}')")
    down = [text for text in page.locator(cells).all_inner_texts() if text]
    if column == "Parameters":
        up, down = ([float(text.split()[0]) for text in texts] for texts in (up, down))
        assert up == sorted(up) and down == sorted(down, reverse=True)
    assert up[0] <= down[0]
    assert page.locator("[aria-sort=descending]").count() == 1


def test_the_address_keeps_the_state(visit):
    page = visit("some")
    page.fill("#search", "vit & 50%")
    page.click(".tiles .failed button")
    page.click(".sort:text-is('Time')")
    address = page.evaluate("location.hash")
    assert address == "#q=vit+%26+50%25&verdict=failed&sort=seconds"
    again = visit("some", fragment=address)
    assert again.input_value("#search") == "vit & 50%"
    assert again.evaluate(STATUS) == page.evaluate(STATUS)
    assert again.locator("[aria-sort=ascending]").inner_text() == "Time"
    # Who follows another address on the page gets what it says.
    again.evaluate("location.hash = '#verdict=none'")
    _eventually(again, f"{STATUS} === '3 of 120 models'")
    # What nobody has written is no state, and no error.
    assert visit("some", fragment="#sort=__proto__&verdict=x&q=").evaluate(STATUS) == "120 models"


def test_the_keyboard_reaches_everything(visit):
    page = visit("some")
    reached = []
    for _ in range(16):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim()"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
    assert reached[0] == "Skip to the models"
    assert reached[1].startswith("3 failed") and "Verdict" in reached
    assert any(text.startswith("hf://acme/") for text in reached)
    page.keyboard.press("Shift+Tab")
    page.locator(".tiles button").first.focus()
    page.keyboard.press("Space")
    assert page.evaluate(STATUS) == "3 of 120 models"
    # The link that skips takes nothing away from the address.
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    _eventually(page, "location.hash === '#verdict=failed'")
    assert page.evaluate(STATUS) == "3 of 120 models"


def test_rows_follow_as_one_scrolls(visit):
    page = visit("many")
    count = "document.querySelectorAll('#models tbody tr').length"
    assert page.evaluate(count) < 500
    before = page.evaluate(count)
    page.locator("footer").scroll_into_view_if_needed()
    _eventually(page, f"{count} > {before}")
    page.fill("#search", "-4999")
    assert _names(page) == ["hf://acme/vit_base-4999"]


def test_paper_has_all_rows(visit):
    page = visit("some")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(_names(page)) == 120


@pytest.mark.parametrize("width", [390, 1200])
def test_without_a_script_the_table_is_there(visit, width):
    page = visit("some", width=width, scripts=False)
    assert page.locator("#models tbody tr:visible").count() == 120
    assert not page.locator("#controls").is_visible()
    assert page.locator("#models button").count() == 0


def test_thousands_of_rows_filter_smoothly(visit, files):
    assert files("many").stat().st_size < 3_000_000
    page = visit("many")
    worst = page.evaluate(
        """() => {
        const search = document.getElementById("search");
        return ["r", "re", "res", "resnet50", "v", ""].map(text => {
            const start = performance.now();
            search.value = text;
            search.dispatchEvent(new Event("input"));
            document.body.offsetHeight;
            return performance.now() - start;
        }).sort((a, b) => a - b)[2];
    }"""
    )
    assert worst < SMOOTH_MS


def test_nothing_that_a_name_holds_is_run(visit, complaints):
    page = visit("hostile", fragment="#q=%3C/script%3E%3Cimg%20src=x%20onerror=alert(1)%3E")
    assert page.evaluate(STATUS) == "None of 3 models"
    page.fill("#search", "<img")
    page.click(".sort:text-is('Model')")
    assert page.locator("#models tbody tr").count() == 1
    assert page.evaluate("document.images.length") == 0
    assert page.evaluate("document.scripts.length") == 1
    assert page.title() != "run"
    # The policy stands before what would get in all the same.
    page.evaluate(
        """document.body.insertAdjacentHTML("beforeend",
            "<img src=x onerror=\\"document.title = 'run'\\"><i id=bad style='opacity: 0'>x</i>")"""
    )
    page.wait_for_timeout(100)
    assert page.title() != "run"
    assert page.evaluate("getComputedStyle(document.querySelector('#bad')).opacity") == "1"
    assert sum("Content Security Policy directive" in text for text in complaints) >= 2
    complaints.clear()
