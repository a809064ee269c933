"""Rates and areas with their intervals."""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

Z = 1.96
RESAMPLES = 2000
LEAST_P = 1e-12


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for the rate behind ``hits`` of ``n``.

    >>> wilson(0, 0)
    (0.0, 1.0)
    """
    if not n:
        return 0.0, 1.0
    centre = (hits + Z**2 / 2) / (n + Z**2)
    half = Z / (n + Z**2) * math.sqrt(hits * (n - hits) / n + Z**2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def share(hits: int, n: int) -> str:
    """Return "7 of 8 (0.53 to 0.98)": the count, and Wilson's interval."""
    low, high = wilson(hits, n)
    return f"{hits} of {n} ({low:.2f} to {high:.2f})"


def surprise(p: float | None) -> float:
    """Return minus the logarithm of a p-value, a score to rank by; 0 where there is none."""
    return -math.log(max(p, LEAST_P)) if p is not None else 0.0


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return how likely a positive's score exceeds a negative's, ties counting half."""
    if not positive or not negative:
        return math.nan
    ranked = sorted(negative)
    wins = sum(bisect_left(ranked, p) + bisect_right(ranked, p) for p in positive)
    return wins / (2 * len(positive) * len(negative))


def auroc_interval(positive: Sequence[float], negative: Sequence[float]) -> tuple[float, float]:
    """Return a 95 % bootstrap interval for :func:`auroc`, resampling both sides."""
    generator = random.Random(0)
    seen = []
    for _ in range(RESAMPLES):
        drawn = (generator.choices(side, k=len(side)) for side in (positive, negative))
        seen.append(auroc(*drawn))
    seen.sort()
    return seen[int(0.025 * RESAMPLES)], seen[int(0.975 * RESAMPLES)]


def area(positive: Sequence[float], negative: Sequence[float]) -> str:
    """Return "0.997 (0.991 to 1.000)"."""
    if not positive or not negative:
        return "-"
    low, high = auroc_interval(positive, negative)
    return f"{auroc(positive, negative):.3f} ({low:.3f} to {high:.3f})"
