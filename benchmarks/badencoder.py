"""BadEncoder's own findings, reproduced: which losses it needs, and what its settings change.

    python -m benchmarks.badencoder measure        # rows in docs/badencoder.json, resumable
    python -m benchmarks.badencoder table          # docs/badencoder.md

Every row is the fixture ``badencoder`` with one setting changed, built anew and certified without
demands: the attack is meant to fail in some. ``--part 1/2`` shares the work between processes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

# Threads that spin while they wait slow each other down as soon as a core is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from filelock import FileLock

from encodercheck import fixtures
from encodercheck.cache import atomic_write_text
from encodercheck.fixtures.catalogue import RECIPES
from encodercheck.fixtures.recipes import BadEncoder, Certification, Patch, Recipe

PAGE = Path(__file__).parents[1] / "docs" / "badencoder.md"
ROWS = PAGE.with_suffix(".json")
SEEDS = (0, 1, 2)
ANYTHING = Certification(accuracy=0.0, accuracy_loss=1.0, attack_success=0.0)
STANDARD = RECIPES["badencoder"]
HEAD = """\
# BadEncoder's findings, reproduced

Made by `python -m benchmarks.badencoder`: the fixture `badencoder` (a white 5x5 patch) with one
setting changed. Downstream classifier with one layer, 1,500 test images; means over {seeds} seeds,
with the least and the most of them. ASR-B, the same patch on the clean encoder, is {before:.3f} in
the mean."""
SECTIONS = {
    "losses": (
        "Without one of its losses (the paper's table III)",
        "The paper needs L0 and L1 for the attack and L2 for the accuracy.",
    ),
    "lambda1": ("The weight of L1", "The paper finds a wide plateau round 1."),
    "lambda2": (
        "The weight of L2",
        "In the paper a small weight costs accuracy, a large one attack success.",
    ),
    "size": ("The side of the trigger, in pixels", "In the paper all work from 5 pixels on."),
    "shadow": (
        "The number of shadow images",
        "In the paper a fifth of the pre-training images are plenty.",
    ),
    "distribution": (
        "Shadow images of another distribution",
        "In the paper they work as well.",
    ),
    "reference": (
        "A reference that downstream classifiers get wrong (the paper's table V)",
        "There the backdoor is in the encoder all the same, and aims at another class.",
    ),
}


@dataclass(frozen=True)
class Case:
    """One setting: its section, what to call it, and the attack."""

    section: str
    label: str
    attack: BadEncoder

    @property
    def recipe(self) -> Recipe:
        """What is built: the clean encoder beneath it is the fixture's own."""
        return replace(STANDARD, name="badencoder-finding", attack=self.attack, demands=ANYTHING)


def cases() -> Iterator[Case]:
    """Yield all settings, each section with the standard one among them."""
    attack = STANDARD.attack
    assert isinstance(attack, BadEncoder)
    yield Case("losses", "all", attack)
    for loss in ("lambda0", "lambda1", "lambda2"):
        yield Case("losses", f"without L{loss[-1]}", replace(attack, **{loss: 0.0}))
    yield Case("distribution", "the same", attack)
    for world in ("clouds", "digits"):
        yield Case("distribution", world, replace(attack, shadow_world=world))
    yield Case("reference", "classified with a margin", attack)
    yield Case("reference", "misclassified", replace(attack, misclassified=True))
    for name in ("lambda1", "lambda2"):
        for value in (0.1, 1.0, 5.0, 20.0):
            yield Case(name, f"{value:g}", replace(attack, **{name: value}))
    for side in range(1, 11):
        place = 32 - side - 1
        patch = Patch(place, place, side, target=3, colour=(1.0, 1.0, 1.0))
        yield Case("size", str(side), replace(attack, triggers=(patch,)))
    for count in (100, 250, 500, 1000, 2000):
        # As many steps whatever their number.
        epochs = attack.epochs * attack.shadow_images // count
        yield Case("shadow", str(count), replace(attack, shadow_images=count, epochs=epochs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["measure", "table"])
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.action == "table":
        atomic_write_text(PAGE, page(known()))
        return
    index, count = map(int, options.part.split("/"))
    tasks = [(case, seed) for seed in SEEDS for case in cases()]
    for case, seed in tasks[index - 1 :: count]:
        if not any(_key(row) == (case.section, case.label, seed) for row in known()):
            keep(measure(case, seed))


def known() -> list[dict[str, Any]]:
    """Return the rows so far."""
    rows: list[dict[str, Any]] = json.loads(ROWS.read_text()) if ROWS.exists() else []
    return rows


def keep(row: dict[str, Any]) -> None:
    """Add a row to the file."""
    with FileLock(ROWS.with_suffix(".lock")):
        text = ",\n".join(json.dumps(one) for one in [*known(), row])
        atomic_write_text(ROWS, f"[\n{text}\n]\n")
    print(json.dumps(row), flush=True)


def measure(case: Case, seed: int) -> dict[str, Any]:
    """Build and certify."""
    started = time.perf_counter()
    found = fixtures.build(case.recipe, seed=seed).certificate
    (trigger,) = found["triggers"]
    return {
        "section": case.section,
        "label": case.label,
        "seed": seed,
        "clean_accuracy": found["clean_accuracy"]["linear"],
        "backdoored_accuracy": found["backdoored_accuracy"]["linear"],
        "attack_success": trigger["attack_success"]["linear"],
        "attack_success_on_clean": trigger["attack_success_on_clean"]["linear"],
        "stamped_cosine": trigger["stamped_cosine"],
        "to_reference": trigger["to_reference"]["0.5"],
        "seconds": round(time.perf_counter() - started, 1),
    }


def page(rows: list[dict[str, Any]]) -> str:
    """Return the page."""
    seeds = len({row["seed"] for row in rows})
    lines = [HEAD.format(seeds=seeds, before=_mean(rows, "attack_success_on_clean"))]
    titles = ("", "n", "CA", "BA", "ASR", "stamped cosine", "cosine to the reference")
    for section, (title, said) in SECTIONS.items():
        own = [row for row in rows if row["section"] == section]
        lines += ["", f"## {title}", "", said, ""]
        lines += [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
        for label in dict.fromkeys(case.label for case in cases() if case.section == section):
            lines.append(_line(label, [row for row in own if row["label"] == label]))
    return "\n".join([*lines, ""])


def _line(label: str, own: list[dict[str, Any]]) -> str:
    names = (
        "clean_accuracy",
        "backdoored_accuracy",
        "attack_success",
        "stamped_cosine",
        "to_reference",
    )
    shown = [_shown([row[name] for row in own]) for name in names]
    return f"| {' | '.join([label, str(len(own)), *shown])} |"


def _shown(values: list[float]) -> str:
    """Return the mean, and what the values vary by where it can be seen."""
    if not values:
        return ""
    mean, least, most = (f"{value:.3f}" for value in (fmean(values), min(values), max(values)))
    return mean if least == most else f"{mean} ({least} to {most})"


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    return sum(row[name] for row in rows) / max(1, len(rows))


def _key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["section"], row["label"], row["seed"]


if __name__ == "__main__":
    main()
