"""The pictures of HTML reports in the documentation, drawn by a headless Chromium.

    python -m benchmarks.report_picture

writes docs/report-failed.png and docs/report-passed-dark.png. ENCODERCHECK_BROWSER names the
browser where it is not called chromium. Needs the extra ``dev``.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import encodercheck
from encodercheck.render import html

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 1000
# A page is cut below this: what comes first is the point.
HEIGHT = 1560


def main() -> None:
    """Scan a poisoned and a clean encoder, and draw both reports."""
    browser = os.environ.get("ENCODERCHECK_BROWSER") or shutil.which("chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        draw(started, "fixture:badencoder", "light", DOCS / "report-failed.png")
        draw(started, "fixture:clean", "dark", DOCS / "report-passed-dark.png")
        started.close()


def draw(browser: Browser, model: str, scheme: str, picture: Path) -> None:
    """Scan ``model``, and draw its report in a colour scheme, "light" or "dark"."""
    with tempfile.TemporaryDirectory() as folder:
        # Kept where the command line keeps them: the report says so.
        os.chdir(folder)
        artifacts = Path("encodercheck-artifacts", model.removeprefix("fixture:"))
        file = Path(folder, "report.html")
        file.write_text(html.render([encodercheck.scan(model, artifacts=artifacts)]), "utf-8")
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)
        page.goto(file.as_uri())
        height = min(HEIGHT, page.evaluate("document.documentElement.scrollHeight"))
        shot = page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
        page.close()
        os.chdir(DOCS)
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    # The palette that keeps rare colours, such as that of links.
    few = image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(picture, optimize=True)


if __name__ == "__main__":
    main()
