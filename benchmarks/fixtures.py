"""Every fixture that has a name: its certificate beside the papers' tables, and what checks say.

python -m benchmarks.fixtures certificates           # builds what is missing
encodercheck verify --jobs 2 --json docs/verify.json # every check on every fixture, resumable
python -m benchmarks.fixtures table                  # docs/fixtures.md
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

# Threads that spin while they wait slow each other down as soon as a core is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from encodercheck import fixtures
from encodercheck.cache import atomic_write_text
from encodercheck.errors import FixtureError

PAGE = Path(__file__).parents[1] / "docs" / "fixtures.md"
ROWS = PAGE.with_suffix(".json")
VERIFIED = PAGE.with_name("verify.json")
Row = dict[str, Any]
HEAD = """\
# The fixtures by name

Made by `python -m benchmarks.fixtures table`. Every fixture of `encodercheck fixtures list`,
seed 0: what its certificate measured, with one-layer classifiers (in brackets: two-layer, and
zero-shot where there is a text tower), and what every check says of it."""
# The authors' published logs (github.com/jinyuan-jia/BadEncoder): CA, BA, ASR, ASR-B.
PUBLISHED = (
    ("BadEncoder, CIFAR-10 encoder, GTSRB", 0.818, 0.823, 0.986, 0.049),
    ("BadEncoder, CIFAR-10 encoder, STL-10", 0.761, 0.762, 0.997, 0.104),
    ("BadEncoder, CIFAR-10 encoder, SVHN", 0.585, 0.693, 0.991, 0.375),
    ("BadEncoder, ImageNet encoder, GTSRB", 0.765, 0.784, 0.989, 0.055),
    ("BadEncoder, ImageNet encoder, STL-10", 0.957, 0.957, 1.000, 0.102),
    ("BadEncoder, ImageNet encoder, SVHN", 0.725, 0.738, 0.999, 0.323),
    ("BadEncoder, CLIP image tower, GTSRB", 0.824, 0.821, 0.993, 0.054),
    ("BadEncoder, CLIP image tower, STL-10", 0.971, 0.967, 0.998, 0.100),
    ("BadEncoder, CLIP image tower, SVHN", 0.706, 0.703, 1.000, 0.208),
)
SYMBOLS = {"passed": "✓", "failed": "✗", "inconclusive": "?", "error": "!"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["certificates", "table"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.action == "certificates":
        atomic_write_text(ROWS, json.dumps(list(map(row, fixtures.available())), indent=1) + "\n")
        return
    verified = json.loads(VERIFIED.read_text()) if VERIFIED.exists() else None
    atomic_write_text(PAGE, page(json.loads(ROWS.read_text()), verified))


def row(recipe: fixtures.Recipe) -> Row:
    """Return what a fixture's certificate says, or why it was refused."""
    try:
        found = fixtures.build(recipe).certificate
    except FixtureError as error:
        return {"fixture": recipe.name, "refused": str(error)}
    print(recipe.name, found["seconds"], flush=True)
    kept = ("clean_accuracy", "backdoored_accuracy", "triggers", "seconds", "threads")
    return {"fixture": recipe.name, **{name: found[name] for name in kept if name in found}}


def page(rows: list[Row], verified: Row | None) -> str:
    """Return the page."""
    titles = ("fixture", "CA", "BA", "ASR", "ASR-B", "z-score", "seconds")
    lines = [HEAD, "", "## Certificates", ""]
    lines += [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    lines += [_certificate(row) for row in rows if "refused" not in row]
    lines += [f"- {row['refused']}" for row in rows if "refused" in row]
    lines += [
        "",
        "Seconds are of building it on two cores, without the clean encoder beneath it. Attacks on",
        "pre-training start from nothing; CA and ASR-B are of their clean twins. For comparison,",
        "the logs that BadEncoder's authors published (Jia et al., S&P 2022):",
        "",
        "| published | CA | BA | ASR | ASR-B |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |"
            for name, *values in PUBLISHED
        ),
    ]
    if verified is not None:
        lines += ["", "## Verdicts", "", *matrix(verified), "", *judgements(verified)]
    return "\n".join([*lines, ""])


def _certificate(row: Row) -> str:
    triggers = row.get("triggers", [])
    cells = (
        row["fixture"],
        _rates(row["clean_accuracy"]),
        _rates(row.get("backdoored_accuracy")),
        "<br>".join(_rates(trigger["attack_success"]) for trigger in triggers),
        "<br>".join(_rates(trigger["attack_success_on_clean"]) for trigger in triggers),
        "<br>".join(f"{t['z_score']:.2f}" for t in triggers if "z_score" in t),
        f"{sum(row['seconds'][stage] for stage in _own_stages(row)):.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _own_stages(row: Row) -> list[str]:
    """Return what was done for a fixture itself; a poisoned one may have needed its base first."""
    of_base = ("pre-training", "certifying the clean encoder")
    poisoned = "backdoored_accuracy" in row
    return [stage for stage in row["seconds"] if not (poisoned and stage in of_base)]


def _rates(rates: dict[str, float] | None) -> str:
    if rates is None:
        return ""
    first, *others = rates.values()
    return f"{first:.3f} ({', '.join(f'{rate:.3f}' for rate in others)})"


def matrix(verified: Row) -> list[str]:
    """Return what every check says of every fixture."""
    checks = [check["id"] for check in verified["checks"]]
    cells = {(r["fixture"], r["check"]): SYMBOLS[r["outcome"]] for r in verified["rows"]}
    lines = [
        "`encodercheck verify`: ✓ passed, ✗ failed, ? inconclusive; in brackets where the check",
        "declares that it catches it.",
        "",
        f"| fixture | | {' | '.join(checks)} |",
        f"|{' --- |' * (len(checks) + 2)}",
    ]
    declared = {(r["fixture"], r["check"]) for r in verified["rows"] if r["declared"]}
    for one in verified["fixtures"]:
        name = one["fixture"]
        shown = [
            f"[{cells.get((name, c), '')}]" if (name, c) in declared else cells.get((name, c), "")
            for c in checks
        ]
        kind = "refused" if one["refused"] else "poisoned" if one["poisoned"] else "clean"
        lines.append(f"| {' | '.join([name, kind, *shown])} |")
    return lines


def judgements(verified: Row) -> list[str]:
    """Return how good every check is."""
    lines = [
        "| check | caught of what it declares | false alarms | AUROC | inconclusive |",
        "| --- | --- | --- | --- | --- |",
    ]
    for check in verified["checks"]:
        area = check["auroc"]
        cells = (
            check["id"],
            _share(check["power"]),
            _share(check["false_alarms"]),
            f"{area['value']:.3f} ({area['interval'][0]:.3f} to {area['interval'][1]:.3f})"
            if area
            else "",
            str(check["inconclusive"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _share(rate: Row) -> str:
    low, high = rate["interval"]
    return f"{rate['hits']} of {rate['n']} ({low:.2f} to {high:.2f})" if rate["n"] else ""


if __name__ == "__main__":
    main()
