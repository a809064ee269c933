"""Scan the real encoders and their poisoned copies as a user would: the whole suite, strictly.

The bank that ships has the clean ones. What a scan measured is judged once more by a bank without
any of them.
"""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from benchmarks.bank import fitting, making
from benchmarks.bank.members import EXAMINED, PRETRAINED, Member, members
from benchmarks.bank.pretrained import OWN_MEAN, OWN_STD
from encodercheck.bank import Bank, normal_score
from encodercheck.cache import atomic_write_text
from encodercheck.config.rules import Rules
from encodercheck.report import Outcome, Report
from encodercheck.scanning import prepare, run

RESULTS = Path(__file__).with_name("exam.json")
PROFILE = "quick"
PREFIX = "network."

if TYPE_CHECKING:
    from encodercheck.harness.state import ScanState

Row = dict[str, Any]


def exam() -> None:
    """Scan each that is made and not scanned yet, and keep the results beside the code."""
    for member in (*members(), *EXAMINED):
        if member.family in PRETRAINED and (making.folder(member) / "made.json").exists():
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
    row |= _scan(member, weights, poisoned=poisoned)
    lines = ",\n".join(json.dumps(one) for one in [*rows, row])
    atomic_write_text(RESULTS, f"[\n{lines}\n]\n")
    print(row, flush=True)


def _scan(member: Member, weights: Path, *, poisoned: bool) -> Row:
    own = {name.removeprefix(PREFIX): value for name, value in load_file(weights).items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_file(own, path)
        state = prepare(
            path,
            arch=f"timm:tf_efficientnet_lite{member.family[-1]}",
            image_size=member.size,
            mean=(OWN_MEAN,) * 3,
            std=(OWN_STD,) * 3,
            profile=PROFILE,
            artifacts=Path(folder) / "artifacts",
        )
        # Nothing about a poisoned copy depends on the check that is left out.
        report = run(state, strict=True, rules=Rules(ignore=("EC301",) if poisoned else ()))
    return _result(report) | {"left_out_failed": _failed(_others(member.kind), state, report)}


def _failed(bank: Bank, state: ScanState, report: Report) -> list[str]:
    """Return the values by which a scan fails, judged by another bank."""
    values = {
        f"{found.id}.{m.name}": m.value for found in report.findings for m in found.measurements
    }
    limit = normal_score(bank.alpha)
    return [key for key, score in bank.deviations(values, state.traits).items() if score > limit]


@cache
def _others(family: str) -> Bank:
    """Return the bank without a family."""
    return fitting.bank([row for row in fitting.known() if row["family"] != family])


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
