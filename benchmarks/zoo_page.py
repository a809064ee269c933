"""The page of many models: how large it is, how fast in a browser, and its picture in docs.

    python -m benchmarks.zoo_page [--models 5000]

makes reports up, of models that do not exist, writes their page, opens it in a headless Chromium
and prints what that took; the picture goes to docs/zoo-page.png. ENCODERCHECK_BROWSER names the
browser where it is not called chromium. Needs the extra ``dev``.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from encodercheck.render import zoo_page
from encodercheck.render.zoo_page import rows
from encodercheck.report import Direction, Finding, Measurement, Outcome, Report

PICTURE = Path(__file__).parents[1] / "docs" / "zoo-page.png"
WIDTH, HEIGHT = 1240, 860
TYPED = ("r", "re", "res", "resn", "resne", "resnet", "resnet ec202", "vit", "convnext", "")
LIMITS = {"EC102": 0.872, "EC202": 0.872, "EC203": 0.989, "EC204": 0.989, "EC301": 0.751}
KINDS = (
    ("timm/resnet50.a1_in1k", "resnet50", 25_557_032, 224, 2048),
    ("timm/vit_base_patch16_224.dino", "vit_base_patch16_224", 85_798_656, 224, 768),
    ("openai/clip-vit-base-patch32", "ViT-B-32", 87_849_216, 224, 512),
    ("acme/simclr-resnet18", "resnet(basic, width 64)", 11_168_832, 32, 512),
    ("lab/byol-convnext-tiny", "convnext_tiny", 27_820_128, 224, 768),
    ("acme/narrow-encoder", "resnet(basic, width 16)", 307_536, 32, 128),
)


def main() -> None:
    """Write the page, measure it, draw it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=int, default=5000)
    count = parser.parse_args().models
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder, "index.html")
        told = {"models": count, **write(file, count)}
        executable = os.environ.get("ENCODERCHECK_BROWSER") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        told |= measure(browser, file)
        draw(browser, file)
        browser.close()
    print(json.dumps(told, indent=2))


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


def reports(count: int) -> Iterator[Report]:
    """Yield reports as they might be: two in a hundred fail, three have no verdict."""
    luck = random.Random(0)
    for number in range(count):
        name, architecture, parameters, side, width = luck.choice(KINDS)
        path = f"hf://{name}-{number:04d}"
        fate = luck.random()
        if fate < 0.015:
            yield Report.unreadable(path, "no known architecture fits the weights; name it: --arch")
            continue
        model = {
            **{"path": path, "sha256": f"{number:064x}", "architecture": architecture},
            **{"provenance": "config.json", "notes": [], "parameters": parameters},
            **{"image_size": side, "embedding_dim": width},
        }
        images = {"source": "procedural", "count": 352, "unreadable": 0}
        versions = {"encodercheck": "0.1.0", "torch": "2.6.0"}
        found = tuple(findings(luck, fate))
        seconds = luck.lognormvariate(3.2 if side < 100 else 4.4, 0.5)
        yield Report(model, images, found, 0, "cuda:0", versions, seconds)


def findings(luck: random.Random, fate: float) -> Iterator[Finding]:
    """Yield what the checks might say of one model."""
    for id_, limit in LIMITS.items():
        outcome, values = Outcome.PASSED, (luck.uniform(0.02, 1), luck.uniform(0.3, 0.95) * limit)
        if fate > 0.98 and (id_ == "EC202" or (id_ == "EC102" and luck.random() < 0.4)):
            outcome, values = (
                Outcome.FAILED,
                (10 ** -luck.uniform(3, 9), luck.uniform(0.96, 0.9995)),
            )
        if 0.015 < fate < 0.03 or (fate < 0.07 and id_ == "EC301"):
            message = "bring images of the kind that the encoder was trained on"
            yield Finding(id_, "check", "critical", Outcome.INCONCLUSIVE, message)
            continue
        chance, value = values
        measured = (
            Measurement("p_value", chance),
            Measurement("gain", value, limit, Direction.AT_MOST),
        )
        yield Finding(id_, "check", "critical", outcome, measurements=measured)


def measure(browser: Browser, file: Path) -> dict[str, float]:
    """Return the milliseconds until something, and until all of it, is there, and of a letter."""
    runs = [_opened(browser, file) for _ in range(3)]
    return {name: round(median(run[name] for run in runs)) for name in runs[0]}


def _opened(browser: Browser, file: Path) -> dict[str, float]:
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.goto(file.as_uri())
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
