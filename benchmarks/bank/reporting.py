"""The page about the bank, from its rows alone: error rates on kinds that are left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.bank import trait_attack
from benchmarks.bank.exam import PROFILE
from benchmarks.bank.exam import known as exam_results
from benchmarks.bank.fitting import LEAST_ACCURACY, known, usable, value
from benchmarks.bank.judging import Judged, judge
from benchmarks.bank.members import ADAPTIVE, COUNT, OTHERS, PATCHES
from benchmarks.bank.sources import CLASSES
from encodercheck.bank import SUITE_ALPHA
from encodercheck.cache import atomic_write_text
from encodercheck.intervals import area, share
from encodercheck.methods.crops import LEAST_SIZE
from encodercheck.methods.decree import NEAR
from encodercheck.methods.stopping import SMOOTH, Stopping

PAGE = Path(__file__).parents[2] / "docs" / "bank.md"
# The kinds of triggers that a search goes through one after another.
STARTS = {"EC202": 2, "EC203": 2, "EC204": 1}
LOST = 1.35
# Members that were looked at while the values and their weights were chosen.
SEEN = {*range(94), *range(107, 160), *range(246, 256)}
STRENGTHS = (-1, 0.8, 0.9, 0.97, 1.01)
# By how many standard deviations an attacker moves traits.
MOVES = (0, 0.25, 0.5, 1)
GROUPS = {"family": "family", "method": "pre-training", "source": "image source"}

Row = dict[str, Any]


def report() -> None:
    """Write the page."""
    everything = known()
    rows = usable(everything)
    clean = [row for row in rows if row["attack"] is None]
    poisoned = [row for row in rows if row["attack"] is not None]
    families = len({row["family"] for row in clean})
    measured = [row for row in everything if "inconclusive" not in row and row["attack"] is None]
    useless = len(measured) - len(clean)
    lines = [
        "# The reference bank",
        "",
        "Made by `python -m benchmarks.bank report` from `benchmarks/bank/measured.json`, which",
        "holds what the checks measured; `make` and `measure` made that, with profile standard.",
        "",
        f"It has {len(clean)} clean encoders of {families} families (planned: {COUNT}), each with",
        f"a poisoned copy where the attack took ({len(poisoned)}). Left out are {useless},",
        f"trained, by whose embeddings a linear probe tells {CLASSES} classes little better than",
        f"chance (accuracy below {LEAST_ACCURACY}). Every encoder is judged by predictions,",
        "deviations and a limit that were made without any encoder of its group.",
        f"The limit is set for a false-positive rate of {SUITE_ALPHA:g} a scan. Intervals are 95 %",
        "(Wilson's for rates, bootstrapped for areas).",
        "",
        "Encoders are small and trained for seconds; some attacks in the table are weak, and their",
        "own trigger gains little. The pages on inversion, attacks, DeDe, fixtures and other kinds",
        "of training were measured by an earlier version, which had no bank.",
        "",
        "## Error rates with a group left out",
        "",
        "*Inconclusive* are scans that passed with a check that could not decide.",
        "",
        "| left out | clean that failed | patches that failed | other attacks that failed |"
        " inconclusive: clean, patches, others | AUROC, patches | AUROC, others |"
        " worst group by false alarms | worst group by misses |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    judged = {group: judge(rows, group) for group in GROUPS}
    lines += [_line(judged[group], group) for group in GROUPS]
    unseen = [j for j in judged["family"] if j.row["number"] not in SEEN]
    lines += [_line(unseen, "family", "family; made after the choices")] if unseen else []
    lines += [
        "",
        "Which values are compared, how much of the error rate each has, the traits and which",
        "encoders are left out was chosen while looking at these rates, on nearly all encoders:",
        "the first three lines are optimistic. The last is of those that were measured afterwards.",
    ]
    lines += ["", "## By attack, with the family left out", ""]
    lines += _by(judged["family"], "attack", (*PATCHES, *OTHERS, *ADAPTIVE))
    lines += ["", "## By what the attacker's own trigger gains, patches", ""]
    lines += _by_strength(judged["family"])
    lines += ["", "## By family, left out", ""]
    lines += _by_family(judged["family"])
    lines += ["", "## If an attacker could move the traits", "", *_moved(rows)]
    lines += ["", "## The same encoders by a fixed limit", "", *_fixed(rows)]
    lines += ["", "## Early stopping", "", *_stopping(rows)]
    lines += ["", "## Real weights", "", *_exam()]
    lines += ["", "## Clean encoders that failed", "", *_alarms(judged["family"])]
    lines += ["", "## Poisoned encoders that passed", "", *_misses(judged["family"])]
    atomic_write_text(PAGE, "\n".join(lines).rstrip() + "\n")


def _split(judged: Sequence[Judged]) -> tuple[list[Judged], list[Judged], list[Judged]]:
    """Return the clean ones, those with patches, and those with other attacks."""
    return (
        [j for j in judged if j.row["attack"] is None],
        [j for j in judged if j.row["attack"] in PATCHES],
        [j for j in judged if j.row["attack"] in OTHERS],
    )


def _line(judged: Sequence[Judged], group: str, title: str = "") -> str:
    clean, patches, others = _split(judged)
    scores = [j.score for j in clean]
    cells = [
        title or GROUPS[group],
        *(share(sum(j.failed for j in part), len(part)) for part in (clean, patches, others)),
        ", ".join(str(sum(j.doubtful for j in part)) for part in (clean, patches, others)),
        *(area([j.score for j in part], scores) for part in (patches, others)),
        _most(clean, group, failed=True),
        _most([*patches, *others], group, failed=False),
    ]
    return f"| {' | '.join(cells)} |"


def _most(judged: Sequence[Judged], group: str, *, failed: bool) -> str:
    """Return the group in which most failed, or did not, as "MoCo: 2 of 20"."""
    all_of = Counter(j.row[group] for j in judged)
    those = Counter(j.row[group] for j in judged if j.failed is failed)
    if not those:
        return "none"
    worst = max(those, key=lambda name: those[name] / all_of[name])
    return f"{worst}: {those[worst]} of {all_of[worst]}"


def _by(judged: Sequence[Judged], fact: str, names: Sequence[str]) -> list[str]:
    clean = [j.score for j in judged if j.row["attack"] is None]
    lines = [
        "| attack | failed | AUROC | by the value |",
        "| --- | --- | --- | --- |",
    ]
    for name in names:
        own = [j for j in judged if j.row[fact] == name]
        if own:
            worst = Counter(j.worst for j in own).most_common(3)
            told = ", ".join(f"{key} {count}" for key, count in worst)
            failed = share(sum(j.failed for j in own), len(own))
            lines.append(f"| {name} | {failed} | {area([j.score for j in own], clean)} | {told} |")
    return lines


def _by_strength(judged: Sequence[Judged]) -> list[str]:
    """Return the rate of patches by the gain of the attacker's own trigger, the best of several.

    It tells attacks that hardly took from those that a search missed.
    """
    clean, patches, _ = _split(judged)
    lines = ["| own trigger gains | failed | AUROC |", "| --- | --- | --- |"]
    for low, high in pairwise(STRENGTHS):
        own = [j for j in patches if low <= max(g["gain"] for g in j.row["own"]) < high]
        if own:
            failed = share(sum(j.failed for j in own), len(own))
            scores = [[j.score for j in part] for part in (own, clean)]
            lines.append(f"| {low:g} to {min(high, 1):g} | {failed} | {area(*scores)} |")
    return lines


def _by_family(judged: Sequence[Judged]) -> list[str]:
    lines = [
        "| family | clean that failed | patches | other attacks |",
        "| --- | --- | --- | --- |",
    ]
    for family in dict.fromkeys(j.row["family"] for j in judged):
        parts = _split([j for j in judged if j.row["family"] == family])
        cells = [f"{sum(j.failed for j in part)} of {len(part)}" for part in parts]
        lines.append(f"| {family} | {' | '.join(cells)} |")
    return lines


def _moved(rows: Sequence[Row]) -> list[str]:
    """Return how many still fail whose traits are moved, see :mod:`trait_attack`."""
    patches = [row for row in rows if row["attack"] in PATCHES]
    others = [row for row in rows if row["attack"] in OTHERS]
    lines = [
        "Poisoned encoders, their family left out. All traits but those of the architecture are",
        "moved in the attacker's favour, each by at most so many standard deviations of the clean",
        "encoders, while the values of the searches stay. No encoder was trained to do so: it is",
        "the most that an attack on the traits could gain.",
        "",
        "| each trait moved by at most | patches that failed | other attacks that failed |",
        "| --- | --- | --- |",
    ]
    counts = trait_attack.survivors(rows, (patches, others), MOVES)
    for size, first, second in zip(MOVES, *counts, strict=True):
        cells = share(first, len(patches)), share(second, len(others))
        lines.append(f"| {size:g} | {cells[0]} | {cells[1]} |")
    return lines


def _fixed(rows: Sequence[Row]) -> list[str]:
    """Return what one limit for all does: PL1 below 0.1, DECREE's, of our search for it."""
    parts = (
        ("clean encoders", [row for row in rows if row["attack"] is None]),
        ("with patches", [row for row in rows if row["attack"] in PATCHES]),
        ("with other attacks", [row for row in rows if row["attack"] in OTHERS]),
    )
    lines = [
        "EC201's search starts from what other searches found, and ends with smaller masks than",
        "the published loop, which was not run on these encoders.",
        "",
        "| encoders | EC201's PL1 below 0.1, DECREE's limit | EC202's gain above 0.9 |",
        "| --- | --- | --- |",
    ]
    for name, own in parts:
        small = sum(value(row, "EC201.pl1") < 0.1 for row in own)
        alike = sum(value(row, "EC202.gain") > 0.9 for row in own)
        lines.append(f"| {name} | {share(small, len(own))} | {share(alike, len(own))} |")
    lines += ["", f"A scan does not begin EC201's search where EC202's gain is below {NEAR}."]
    for name, own in parts:
        far = [value(row, "EC201.pl1") for row in own if value(row, "EC202.gain") < NEAR]
        if far:
            lines.append(f"There, of {len(far)} {name}, the smallest PL1 is {min(far):.3f}.")
    return lines


def _stopping(rows: Sequence[Row]) -> list[str]:
    """Return what giving up loses, by the best scores of every step of the full searches."""
    lines = [
        "Searches were measured to their end. Here the rule that gives one up is applied to the",
        "best score of each of their steps. *Lost* is a search that would have ended with more",
        f"than {LOST} times what the full one leaves of the spread. Encoders of {LEAST_SIZE}",
        "pixels and more are searched on crops first, and left out.",
        "",
        "| search | poisoned, lost | clean, lost | steps, poisoned | steps, clean | full steps |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    whole = [row for row in rows if row["traits"]["image_size"] < LEAST_SIZE]
    for check, starts in STARTS.items():
        cells = [check]
        steps = []
        for poisoned in (True, False):
            own = [row for row in whole if (row["attack"] is not None) is poisoned]
            ended = [_given_up(row[check]["trace"], starts) for row in own]
            cells.append(share(sum(lost for lost, _ in ended), len(ended)))
            steps.append(f"{np.mean([count for _, count in ended]):.0f}")
        full = len(whole[0][check]["trace"])
        lines.append(f"| {' | '.join([*cells, *steps, str(full)])} |")
    return lines


def _given_up(trace: Sequence[float], starts: int) -> tuple[bool, int]:
    """Return whether giving up loses what a search finds, and after how many steps it ends."""
    length = len(trace) // starts
    full, given, taken = -math.inf, -math.inf, 0
    for start in range(starts):
        watch = Stopping(length, limit=1.0)
        part = trace[start * length : (start + 1) * length]
        ends = (n for n, score in enumerate(part, 1) if watch(n, torch.tensor([score])))
        count = next(ends, length)
        taken += count
        given = max(given, float(np.mean(part[max(0, count - SMOOTH) : count])))
        full = max(full, float(np.mean(part[-SMOOTH:])))
    left = [max(1 - score, 1e-3) for score in (given, full)]
    return left[0] > LOST * left[1], taken


def _exam() -> list[str]:
    """Return the scans of real encoders, see :mod:`benchmarks.bank.exam`."""
    lines = [
        "EfficientNet-Lite, trained on ImageNet, and copies with a backdoor by BadEncoder, scanned",
        f"with `--profile {PROFILE} --strict` (`python -m benchmarks.bank exam`), the copies",
        "without EC301. The bank that ships has the clean ones of 64 to 128 pixels. *Without its",
        "like* are the values by which the same scan fails by a bank that has none of them.",
        "",
        "| encoder | image size | trigger | its success: probe, neighbours | outcome | failed |"
        " without its like | inconclusive | a clean encoder looks so 1 time in | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in exam_results():
        success = ", ".join(f"{share:.2f}" for share in row.get("attack_success", ()))
        cells = (
            row["family"],
            row["image_size"],
            row["attack"] or "none",
            success,
            f"{row['outcome']}, exit code {row['exit_code']}",
            ", ".join(row["failed"]),
            ", ".join(row["left_out_failed"]),
            ", ".join(row["inconclusive"]),
            f"{1 / max(row['suspicion'], 1e-6):,.0f}" if row["suspicion"] is not None else "",
            row["seconds"],
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _alarms(judged: Sequence[Judged]) -> list[str]:
    found = [j for j in judged if j.row["attack"] is None and j.failed]
    return [f"- {_named(j)}" for j in found] or ["None."]


def _misses(judged: Sequence[Judged]) -> list[str]:
    found = [j for j in judged if j.row["attack"] is not None and not j.failed]
    lines = []
    for j in sorted(found, key=lambda j: j.row["attack"]):
        own = ", ".join(f"{gains['gain']:.2f}" for gains in j.row.get("own", ()))
        lines.append(f"- {j.row['attack']}, {_named(j)}; the attacker's own trigger gains {own}")
    return lines or ["None."]


def _named(judged: Judged) -> str:
    row = judged.row
    return (
        f"{row['family']}, {row['method']} on {row['source']} (number {row['number']}): "
        f"{judged.score:.2f} deviations in {judged.worst}, limit {judged.limit:.2f}"
    )
