"""Seconds of a whole scan by encoder, on a GPU and beside it on the CPU.

    python -m benchmarks.gpu

scans encoders of real sizes with random weights, and fixtures whose verdict is known, and writes
docs/gpu.md and .json, a row at a time. It takes less than ten minutes on a GPU; ``--minutes`` ends
it earlier, before the next scan. ``--tiny`` takes small encoders: to see on a CPU that it runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.inside import inside
from encodercheck.cache import atomic_write_text
from encodercheck.encoder import Encoder, pick_device
from encodercheck.preprocessing import Preprocessing
from encodercheck.report import Report
from encodercheck.scanning import scan, versions

PAGE = Path(__file__).parents[1] / "docs" / "gpu.md"
REPEATS = 3
TITLES = (
    "encoder",
    "pixels",
    "parameters",
    "profile",
    "device",
    "seconds, median",
    "inside the encoder",
    "peak memory",
    "verdict",
)


@dataclass(frozen=True)
class Case:
    """One encoder: a timm architecture with random weights, or a fixture by its name."""

    name: str
    size: int
    profile: str

    @property
    def fixture(self) -> bool:
        """Whether its verdict is known."""
        return self.name.startswith("fixture:")


REAL = (("resnet18", 32), ("resnet50", 224), ("vit_base_patch16_224", 224),
        ("vit_large_patch14_224", 224), ("resnet50_clip.openai", 224))  # fmt: skip
TINY = (("test_resnet", 32), ("test_vit", 160))
FIXTURES = ("fixture:clean", "fixture:badencoder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page; .json goes beside it")
    options = parser.parse_args()
    device = str(pick_device(options.device))
    ends = time.monotonic() + 60 * options.minutes
    rows: list[dict[str, Any]] = []
    for case, where in plan(device, tiny=options.tiny):
        if time.monotonic() > ends:
            break
        rows.append(measure(case, where, repeats=1 if options.tiny else REPEATS))
        print(json.dumps(rows[-1]), flush=True)
        result = {"device": described(device), "versions": versions(), "rows": rows}
        atomic_write_text(options.out.with_suffix(".json"), json.dumps(result, indent=1) + "\n")
        atomic_write_text(options.out, page(result))


def plan(device: str, *, tiny: bool) -> Iterator[tuple[Case, str]]:
    """Yield what is scanned, and where: what is known best first, the largest last."""
    for name in FIXTURES:
        for where in dict.fromkeys((device, "cpu")):
            yield Case(name, 32, "quick"), where
    for profile in ("quick",) if tiny else ("quick", "standard"):
        for name, size in TINY if tiny else REAL:
            yield Case(name, size, profile), device


def measure(case: Case, device: str, *, repeats: int) -> dict[str, Any]:
    """Scan an encoder several times; return what it took."""
    model: str | Encoder = case.name if case.fixture else untrained(case, device)
    seconds, shares, report = [], [], None
    for _ in range(repeats):
        with inside() as spent:
            started = time.perf_counter()
            report = scan(model, profile=case.profile, device=device)
            seconds.append(time.perf_counter() - started)
        shares.append(spent[0] / seconds[-1])
    assert report is not None
    return {
        "encoder": case.name,
        "image_size": case.size,
        "profile": case.profile,
        "device": device,
        "seconds": [round(one, 2) for one in seconds],
        "inside": round(statistics.median(shares), 3),
        **_facts(report),
    }


def untrained(case: Case, device: str) -> Encoder:
    """Return an encoder with random weights, the same each time."""
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model(case.name, num_classes=0)
    return Encoder(module, preprocessing=Preprocessing(image_size=case.size), device=device)


def _facts(report: Report) -> dict[str, Any]:
    memory = report.memory
    return {
        "parameters": report.model["parameters"],
        "outcome": str(report.outcome),
        "checks": {found.id: round(found.seconds, 2) for found in report.findings},
        "peak_bytes": memory.device_peak_bytes or memory.peak_bytes,
    }


def described(device: str) -> str:
    """Return what a device is called."""
    return torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    lines = [
        "# Scans on a GPU",
        "",
        f"Made by `python -m benchmarks.gpu` on {result['device']}, with torch "
        f"{result['versions']['torch']}.",
        "Encoders other than fixtures have random weights: their verdict says nothing.",
        "",
        f"| {' | '.join(TITLES)} |",
        f"|{' --- |' * len(TITLES)}",
    ]
    for row in result["rows"]:
        cells = (
            row["encoder"],
            row["image_size"],
            f"{row['parameters'] / 1e6:.1f} M",
            row["profile"],
            row["device"],
            f"{statistics.median(row['seconds']):.1f}",
            f"{row['inside']:.2f}",
            f"{row['peak_bytes'] / 1e9:.1f} GB",
            row["outcome"],
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
