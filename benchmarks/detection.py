"""Verdicts of the suite on certified fixtures, and on clean encoders of another image world.

    python -m benchmarks.detection --seeds 0 1 2 3

scans every fixture of every seed with default settings and procedural images, then clean encoders
pre-trained on another world of images (fixtures/clouds.py), still scanned with procedural images.
Writes docs/detection.md and docs/detection.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import encodercheck
from benchmarks.intervals import share
from encodercheck import fixtures
from encodercheck.cache import atomic_write_bytes, atomic_write_text, cache_dir, make_folder
from encodercheck.fixtures import network, pretraining
from encodercheck.fixtures.recipes import Pretraining

ROOT = Path(__file__).parents[1]
VALUES = {"EC102": "gain", "EC201": "pl1", "EC202": "gain"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--profile", default="standard")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "detection")
    options = parser.parse_args()
    rows = []
    for name, seed, path in models(options.seeds):
        report = encodercheck.scan(path, profile=options.profile, seed=seed)
        rows.append(row(name, seed, report.to_dict()))
        print(json.dumps(rows[-1]), flush=True)
    atomic_write_text(options.out.with_suffix(".json"), json.dumps(rows, indent=1) + "\n")
    atomic_write_text(options.out.with_suffix(".md"), table(rows, options.profile))


def models(seeds: list[int]) -> Iterator[tuple[str, int, Path]]:
    """Yield name, seed and file of every encoder."""
    for recipe in fixtures.available():
        for seed in seeds:
            yield recipe.name, seed, fixtures.build(recipe.name, seed=seed).path
    for seed in seeds:
        yield "clean, other images", seed, other_world(seed)


def other_world(seed: int) -> Path:
    """Return a clean encoder pre-trained on clouds, from the cache."""
    recipe = Pretraining()
    path = cache_dir() / "benchmarks" / f"clouds-{seed}.safetensors"
    if not path.exists():
        make_folder(path.parent)
        trained = pretraining.pretrain(recipe, seed=seed, world="clouds")
        atomic_write_bytes(path, network.to_bytes(trained, recipe.network))
    return path


def row(name: str, seed: int, report: dict[str, Any]) -> dict[str, Any]:
    """Return what the table says of one scan."""
    found = {finding["id"]: finding for finding in report["findings"]}
    values = {
        check: next(
            (m["value"] for m in found[check]["measurements"] if m["name"] == measurement), None
        )
        for check, measurement in VALUES.items()
    }
    outcomes = {check: finding["outcome"] for check, finding in found.items()}
    return {
        "encoder": name,
        "seed": seed,
        "outcome": report["outcome"],
        "outcomes": outcomes,
        "values": values,
        "seconds": report["seconds"],
    }


def table(rows: list[dict[str, Any]], profile: str) -> str:
    """Return the rows in Markdown, with the counts that matter on top."""
    poisoned = [row for row in rows if row["encoder"].startswith("badencoder")]
    clean = [row for row in rows if row not in poisoned]
    caught = sum(row["outcome"] == "failed" for row in poisoned)
    alarms = sum(row["outcome"] != "passed" for row in clean)
    lines = [
        "# Detection",
        "",
        f"Made by `python -m benchmarks.detection`; profile {profile}, procedural scanning images.",
        "",
        "The limits of the checks were set on other encoders (seeds 100 and 101).",
        "",
        f"Poisoned encoders that failed: {share(caught, len(poisoned))}. "
        f"Clean encoders that did not pass: {share(alarms, len(clean))}. "
        "Intervals are Wilson's, 95 %.",
        "",
        "| encoder | seed | verdict | EC102 gain | EC201 PL1 | EC202 gain | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in rows:
        cells = [
            f"{value:.3f}{' ✗' if entry['outcomes'][check] == 'failed' else ''}"
            if value is not None
            else entry["outcomes"][check]
            for check, value in entry["values"].items()
        ]
        lines.append(
            f"| {entry['encoder']} | {entry['seed']} | {entry['outcome']} | "
            f"{' | '.join(cells)} | {entry['seconds']:.1f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
