"""The results of many models: how large their page is, how fast in a browser, and as a table.

    python -m benchmarks.zoo_page [--models 5000 20000]

makes reports up, of models that do not exist, writes their page, opens it in a headless Chromium,
draws it in docs/zoo-page.png, and writes their rows as Parquet. What that took goes to
docs/zoo-page.json, and between the marks of docs/zoo-results.md. ENCODERCHECK_BROWSER names the
browser where it is not called chromium. Needs the extra ``dev``.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.made_up import reports
from encodercheck.cache import atomic_write_text
from encodercheck.render import zoo_page
from encodercheck.render.zoo_page import rows, site
from encodercheck.report import Report
from encodercheck.zoo import parquet, saved
from encodercheck.zoo.saved import Result

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from zoos import fill  # noqa: E402

DOCS = ROOT / "docs"
PICTURE, ROWS, PAGE = DOCS / "zoo-page.png", DOCS / "zoo-page.json", DOCS / "zoo-results.md"
WRITTEN, TIMES = 300, 20
WIDTH, HEIGHT = 1240, 860
TYPED = ("r", "re", "res", "resn", "resne", "resnet", "resnet ec202", "vit", "convnext", "")


def main() -> None:
    """Measure all of it, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=int, nargs="+", default=[5000, 20_000])
    parser.add_argument("--page-only", action="store_true", help="write the page from the rows")
    options = parser.parse_args()
    if not options.page_only:
        counts = options.models
        with tempfile.TemporaryDirectory() as folder:
            found = {
                "pages": pages(Path(folder), counts),
                "writing": writing(Path(folder, "few"), WRITTEN),
                "parquet": tabled(Path(folder, "many"), counts[0], TIMES),
            }
        atomic_write_text(ROWS, json.dumps(found, indent=1) + "\n")
    found = json.loads(ROWS.read_text())
    text = replaced(PAGE.read_text(), "page", page_told(found))
    atomic_write_text(PAGE, replaced(text, "parquet", parquet_told(found["parquet"])))
    print(json.dumps(found, indent=2))


def pages(folder: Path, counts: list[int]) -> list[dict[str, float]]:
    """Return what the pages of so many models take; the first one is drawn."""
    found = []
    with sync_playwright() as playwright:
        executable = os.environ.get("ENCODERCHECK_BROWSER") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for count in counts:
            file = folder / f"{count}.html"
            found.append({"models": count, **write(file, count), **measure(browser, file)})
            if count == counts[0]:
                draw(browser, file)
        browser.close()
    return found


def writing(folder: Path, count: int) -> dict[str, float]:
    """Return the milliseconds a model that the page takes, and each report's own page."""
    results = saved.of(fill(folder, reports(count)))
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        site.build(results, folder / "index.html")
        seconds.append(time.perf_counter() - start)
    both, page = (1000 * each / count for each in seconds)
    return {"models": count, "page_ms": round(page, 2), "report_ms": round(both - page, 1)}


def tabled(folder: Path, count: int, times: int) -> dict[str, float]:
    """Return what it takes to write so many reports as Parquet, each read so many times."""
    fill(folder, reports(count))
    # In a process of its own, whose memory is nobody else's.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_tabled, (folder, times))


def _tabled(folder: Path, times: int) -> dict[str, float]:
    results = saved.of(folder)
    begun, resident = time.perf_counter(), []

    def read() -> Iterator[tuple[Result, Report]]:
        for _ in range(times):
            yield from ((result, saved.readable(result, [])) for result in results)
            resident.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    file = folder / "all.parquet"
    written = parquet.write(file, read())
    return {
        "reports": len(results),
        "times": times,
        "rows": written,
        "seconds": round(time.perf_counter() - begun, 1),
        "file_mb": round(file.stat().st_size / 1e6, 1),
        "quarter_mb": round(resident[times // 4 - 1]),
        "most_mb": round(resident[-1]),
    }


def page_told(found: dict[str, Any]) -> str:
    """Return what was measured of the page, as Markdown."""
    columns = (
        ("the file", lambda row: f"{row['file_mb']:.1f} MB"),
        ("something to see", lambda row: f"{row['first_paint_ms'] / 1000:.2f} s"),
        ("all of it there", lambda row: f"{row['loaded_ms'] / 1000:.1f} s"),
        (
            "a letter typed, until its matches are laid out",
            lambda row: f"{row['letter_ms']} ms, at most {row['slowest_letter_ms']} ms",
        ),
    )
    made = found["pages"]
    lines = [
        "".join(f"| {text} " for text in ("models", *(f"{row['models']:,}" for row in made))),
        "| --- " * (len(made) + 1),
        *("".join(f"| {text} " for text in (name, *map(told, made))) for name, told in columns),
    ]
    table = "".join(f"{line}|\n" for line in lines)
    cost = found["writing"]
    return f"""{table}
Writing it takes {cost["page_ms"]:.1f} ms a model, and {cost["report_ms"]:.0f} ms for each
`report.html` that has to be written.
"""


def parquet_told(found: dict[str, Any]) -> str:
    """Return what was measured of the table, as Markdown."""
    count = f"{found['reports']:,} reports"
    return f"""{count}, each read {found["times"]} times, made {found["rows"]:,} rows in
{found["seconds"]:.0f} s, {found["file_mb"]:.1f} MB on disk and {found["most_mb"]:,} MB of memory,
of which {found["quarter_mb"]:,} MB were taken after a quarter of the rows.
"""


def replaced(text: str, mark: str, told: str) -> str:
    """Return the page with something else between two marks."""
    begin, end = (f"<!-- zoo_{mark}:{word} -->" for word in ("begin", "end"))
    pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
    return re.sub(pattern, lambda _: f"{begin}\n{told}{end}", text, flags=re.DOTALL)


def write(file: Path, count: int) -> dict[str, float]:
    """Write the page of so many models; return the seconds and the megabytes."""
    facts, made = zoo_page.Facts("zoo"), []
    for number, report in enumerate(reports(count)):
        facts.add(report, f"2026-11-{20 + number * 2 // max(1, count)}T10:00:00+00:00")
        made.append(rows.of(report, model=report.model["path"], link=f"reports/{number}.html"))
    start = time.perf_counter()
    file.write_text(zoo_page.render(made, facts), encoding="utf-8")
    seconds = time.perf_counter() - start
    return {"render_s": round(seconds, 2), "file_mb": round(file.stat().st_size / 1e6, 2)}


def measure(browser: Browser, file: Path) -> dict[str, float]:
    """Return the milliseconds until something, and until all of it, is there, and of a letter."""
    runs = [_opened(browser, file) for _ in range(3)]
    return {name: round(median(run[name] for run in runs)) for name in runs[0]}


def _opened(browser: Browser, file: Path) -> dict[str, float]:
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.goto(file.as_uri())
    # A small page is there before it is painted.
    page.wait_for_function("performance.getEntriesByType('paint').length")
    told: dict[str, float] = page.evaluate(
        """() => ({
        first_paint_ms: performance.getEntriesByType("paint")[0].startTime,
        loaded_ms: performance.getEntriesByType("navigation")[0].loadEventEnd,
    })"""
    )
    letters = [_typed(page, text) for text in TYPED]
    page.close()
    return {**told, "letter_ms": median(letters), "slowest_letter_ms": max(letters)}


def _typed(page: Page, text: str) -> float:
    """Return the milliseconds from a letter until the rows that match it are laid out."""
    taken: float = page.evaluate(
        """text => {
        const search = document.getElementById("search"), start = performance.now();
        search.value = text;
        search.dispatchEvent(new Event("input"));
        document.body.offsetHeight;
        return performance.now() - start;
    }""",
        text,
    )
    return taken


def draw(browser: Browser, file: Path) -> None:
    """Draw the page in docs."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.goto(f"{file.as_uri()}#verdict=failed,none&q=resnet")
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    image.quantize(128, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
