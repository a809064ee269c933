"""What an attacker gains who can move the traits that predictions are made from.

The values of the searches stay: the attacker keeps the backdoor. Every trait but those of the
architecture is moved so that the largest deviation of the scan is as small as it gets, one trait
after another until none helps. No encoder was trained for this: it is the most that any could
gain, as if traits could be moved freely and nothing else followed from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.bank.fitting import TRAITS, left_out_banks, value
from encodercheck.bank import Bank, normal_score
from encodercheck.methods.prediction import LOGARITHMS, SHARES, feature

FIXED = ("embedding_dim", *SHARES)
MOVABLE = tuple(name for name in TRAITS if name not in FIXED)
ROUNDS = 3

Row = dict[str, Any]


def survivors(
    rows: Sequence[Row], parts: Sequence[Sequence[Row]], sizes: Sequence[float]
) -> list[list[int]]:
    """Return how many of each part still fail for each size of a move, in standard deviations.

    Parts are of ``rows``. Each row is judged by the bank of the others without its family.
    """
    failed = [[0] * len(sizes) for _ in parts]
    for others, own in left_out_banks(rows, "family"):
        limit = normal_score(others.alpha)
        for counts, part in zip(failed, parts, strict=True):
            for row in (row for row in own if row in part):
                for i, size in enumerate(sizes):
                    counts[i] += least(others, row, size) > limit
    return failed


def least(known: Bank, row: Row, size: float) -> float:
    """Return the smallest largest deviation that moving every trait by at most ``size`` leaves."""
    values = {key: value(row, key) for key in known.values}
    own = {name: feature(name, row["traits"][name]) for name in known.traits}
    columns = dict(zip(known.traits, known.inputs.T, strict=True))
    steps = {name: size * float(np.std(columns[name])) for name in MOVABLE}

    def worst(features: Mapping[str, float]) -> float:
        traits = {name: trait(name, number) for name, number in features.items()}
        return max(known.deviations(values, traits).values())

    best, reached = dict(own), worst(own)
    for _ in range(ROUNDS if size else 0):
        for name in MOVABLE:
            for side in (-1, 0, 1):
                moved = best | {name: own[name] + side * steps[name]}
                if (now := worst(moved)) < reached:
                    best, reached = moved, now
    return reached


def trait(name: str, number: float) -> float:
    """Return the trait whose :func:`feature` is ``number``."""
    if name in LOGARITHMS:
        return math.exp(number)
    return number if name in SHARES else 1 - math.exp(-number)
