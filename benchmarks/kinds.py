"""Encoders that the shipped nulls were not made for: other pre-training, and attacks on it.

    python -m benchmarks.kinds scans      # builds them into the cache, and scans them
    python -m benchmarks.kinds table      # docs/kinds.md

The zoo's encoders are trained on clouds, and nulls hold some trained on the embedded scenes. A team
meets others: here are all kinds of pre-training that the fixtures know, on two architectures, and
patches on the transformer of the scenes. No null holds an encoder of these seeds, nor a
transformer that BYOL trained. Transformers of the clouds are here too, of seeds that nobody had
looked at when the rule was made by which a null picks the encoders that count. Rows go to
docs/kinds.json one by one, and what is there is not measured again. ``--part 1/2`` shares the work
between processes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

# Threads that spin while they wait slow each other down as soon as a core is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks import zoo
from benchmarks.rows import Row, Rows
from encodercheck import fixtures
from encodercheck.cache import atomic_write_text
from encodercheck.fixtures.catalogue import HEADLESS, SMALL_VIT
from encodercheck.fixtures.recipes import (
    Byol,
    Mae,
    MoCo,
    Pretraining,
    Recipe,
    ResNet,
    Supervised,
    Untrained,
    ViT,
)
from encodercheck.intervals import share

ROOT = Path(__file__).parents[1]
ROWS = Rows(ROOT / "docs" / "kinds.json")
PAGE = ROOT / "docs" / "kinds.md"
SEEDS = (1, 2, 3)
CLOUDS = "SimCLR, clouds"
FRESH = (21, 23, 25, 27)
VIT = {"network": ViT(), "learning_rate": 2e-3, "batch": 64}
PRETRAINING: dict[str, dict[str, Pretraining]] = {
    "small ViT": {
        "SimCLR": SMALL_VIT,
        "MoCo": MoCo(**VIT),
        "MAE": Mae(),
        "MAE, longer": Mae(epochs=30),
        "supervised": Supervised(**VIT),
        "untrained": Untrained(network=ViT()),
        "BYOL": Byol(**VIT),
    },
    "narrow ResNet": {
        "SimCLR": Pretraining(ResNet()),
        "SimCLR, no head": replace(HEADLESS, smallest_crop=0.08),
        "MoCo": MoCo(),
        "BYOL": Byol(),
        "supervised": Supervised(),
        "untrained": Untrained(),
    },
}
ATTACKED = {"small ViT": ("SimCLR",)}
PATCHES = ("white", "noise", "large")
CLOUDS_PATCHES = (*PATCHES, "small")
# How well an encoder does is no matter here: a poor one must not be called backdoored either.
ANY = replace(zoo.CERTIFICATION, accuracy=0.0)


@dataclass(frozen=True)
class Member:
    """An encoder: its architecture, its kind ("MAE", or "white on SimCLR") and its seed."""

    architecture: str
    kind: str
    seed: int
    reported: bool = True

    @property
    def poisoned(self) -> bool:
        """Whether there is a backdoor in it."""
        return " on " in self.kind

    @property
    def recipe(self) -> Recipe:
        """What it is made of."""
        patch, _, method = self.kind.rpartition(" on ")
        if method == CLOUDS:
            return zoo.Member(self.architecture, patch or "clean", self.seed).recipe
        attack = zoo.Member(self.architecture, patch, self.seed).recipe.attack if patch else None
        return Recipe(
            name=self.kind.replace(" ", "-"),
            summary="",
            pretraining=PRETRAINING[self.architecture][method],
            attack=attack,
            certification=ANY,
        )

    def build(self) -> fixtures.Built:
        """Return it, from the cache where it is there.

        Raises:
            FixtureError: the attack did not take.
        """
        return fixtures.build(self.recipe, seed=self.seed)


def members() -> Iterator[Member]:
    """Yield them all, the fresh transformers first."""
    for seed in FRESH:
        yield Member("small ViT", CLOUDS, seed)
        yield from (Member("small ViT", f"{patch} on {CLOUDS}", seed) for patch in CLOUDS_PATCHES)
    for architecture, methods in PRETRAINING.items():
        for seed in SEEDS:
            yield from (Member(architecture, method, seed) for method in methods)
            for method in ATTACKED.get(architecture, ()):
                yield from (Member(architecture, f"{patch} on {method}", seed) for patch in PATCHES)


def write(rows: list[Row]) -> None:
    """Write the page."""
    found = [row for row in rows if "refused" not in row]
    clean, poisoned = (
        [r for r in found if (" on " in r["kind"]) is flag] for flag in (False, True)
    )
    lines = [
        "# Encoders that the shipped nulls were not made for",
        "",
        "Made by `python -m benchmarks.kinds` from [kinds.json](kinds.json). All are trained on",
        "the embedded scenes, by methods of which nulls hold few encoders or none, and scanned",
        "with other scenes. *Clouds* are transformers as in [inversion.md](inversion.md), of",
        "seeds that nobody had looked at when the rule was made by which a null picks the clean",
        "encoders that count. *p* is the smallest p-value of any check.",
        "",
        f"Clean encoders that failed: {share(sum(map(_failed, clean)), len(clean))}.",
        f"Patches that failed: {share(sum(map(_failed, poisoned)), len(poisoned))}.",
        "",
        "| architecture | encoder | n | failed | inconclusive checks | smallest p |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for architecture, kind in dict.fromkeys((r["architecture"], r["kind"]) for r in found):
        own = [r for r in found if (r["architecture"], r["kind"]) == (architecture, kind)]
        doubts = sum(o == "inconclusive" for row in own for o in row["outcomes"].values())
        least = min((p for row in own for p in row["p_values"].values()), default=1.0)
        cells = (architecture, kind, str(len(own)), str(sum(map(_failed, own))), str(doubts))
        lines.append(f"| {' | '.join(cells)} | {least:.2g} |")
    refused = [row for row in rows if "refused" in row]
    lines += ["", *(f"- {r['architecture']}, seed {r['seed']}: {r['refused']}" for r in refused)]
    atomic_write_text(PAGE, "\n".join(lines).rstrip() + "\n")


def _failed(row: Row) -> bool:
    return bool(row["outcome"] == "failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["scans", "table"])
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.action == "table":
        write(ROWS.read())
        return
    # They make the nulls from some of these encoders.
    from benchmarks.attacks import scan

    index, count = map(int, options.part.split("/"))
    for number, member in enumerate(members()):
        if number % count == index - 1:
            ROWS.add("scan", member, partial(scan, member))


if __name__ == "__main__":
    main()
