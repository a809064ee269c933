"""Scan the real encoders and their poisoned copies as a user would: the whole suite, strictly."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from benchmarks.bank import making
from benchmarks.bank.members import Member, members
from benchmarks.bank.pretrained import OWN_MEAN, OWN_STD
from encodercheck.cache import atomic_write_text
from encodercheck.report import Outcome, Report
from encodercheck.scanning import scan

RESULTS = Path(__file__).with_name("exam.json")
PROFILE = "quick"
PREFIX = "network."

Row = dict[str, Any]


def exam() -> None:
    """Scan each that is made and not scanned yet, and keep the results beside the code."""
    for member in members():
        if member.pretrained and (making.folder(member) / "made.json").exists():
            for poisoned in (True,) if member.repeats_clean else (False, True):
                add(member, poisoned=poisoned)


def known() -> list[Row]:
    """Return the results that are kept beside the code."""
    found: list[Row] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    return found


def add(member: Member, *, poisoned: bool) -> None:
    """Scan one encoder, unless its result or its weights are missing."""
    rows = known()
    attack = member.attack if poisoned else None
    own = {"family": member.family, "attack": attack, "image_size": member.size}
    weights = making.folder(member) / f"{'poisoned' if poisoned else 'clean'}.safetensors"
    if not weights.exists() or any(own.items() <= row.items() for row in rows):
        return
    made = json.loads((making.folder(member) / "made.json").read_text())
    row = own | ({"attack_success": made["success"][0]} if poisoned else {})
    row |= _result(_scan(member, weights, poisoned=poisoned))
    lines = ",\n".join(json.dumps(one) for one in [*rows, row])
    atomic_write_text(RESULTS, f"[\n{lines}\n]\n")
    print(row, flush=True)


def _scan(member: Member, weights: Path, *, poisoned: bool) -> Report:
    own = {name.removeprefix(PREFIX): value for name, value in load_file(weights).items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file(own, path)
        return scan(
            path,
            arch=f"timm:tf_efficientnet_lite{member.family[-1]}",
            image_size=member.size,
            mean=(OWN_MEAN,) * 3,
            std=(OWN_STD,) * 3,
            profile=PROFILE,
            strict=True,
            # It takes the longest, and nothing about a poisoned copy depends on it.
            ignore=("EC301",) if poisoned else (),
            artifacts=Path(folder) / "artifacts",
        )


def _result(report: Report) -> Row:
    chance = report.suspicion.probability if report.suspicion else None
    row: Row = {
        "outcome": str(report.outcome),
        "exit_code": report.exit_code,
        "suspicion": chance,
        "seconds": round(report.seconds),
    }
    for outcome in (Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.ERROR):
        row[str(outcome)] = [f.id for f in report.findings if f.outcome is outcome]
    return row
