"""Tails: how likely it is that one more value like those seen is at least as large."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# However alike all values are.
LEAST_DEVIATION = 1e-9
# Values further out than this many widths are not told apart.
FURTHEST = 1e4
HALVINGS = 80


@dataclass(frozen=True)
class Tail:
    """The prediction of one more value: Student's t with ``freedom`` about ``centre``.

    Geisser, *Predictive Inference*, 1993, section 2.2.
    """

    centre: float
    width: float
    freedom: int

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        *,
        least_deviation: float = LEAST_DEVIATION,
        heavy: bool = False,
    ) -> Tail:
        """Return the tail of values (N,), at least two.

        It has N - 1 degrees of freedom. A ``heavy`` one has as heavy a tail as the values have: of
        their excess kurtosis k, 4 + 6 / k degrees of freedom. With a normal tail a few values
        unlike all others would make false alarms ten times as frequent as is said.
        """
        count, centre = len(values), statistics.fmean(values)
        seen = statistics.stdev(values)
        deviation, freedom = max(seen, least_deviation), count - 1
        width = deviation * math.sqrt(1 + 1 / count)
        excess = _excess_kurtosis(values, centre, seen) if heavy else 0.0
        if excess > 0 and math.floor(4 + 6 / excess) < freedom:
            freedom = math.floor(4 + 6 / excess)
            width *= math.sqrt((freedom - 2) / freedom)
        return cls(centre, width, freedom)

    def beyond(self, value: float) -> float:
        """Return the probability that one more value is at least ``value``."""
        return 1 - student_t((value - self.centre) / self.width, self.freedom)

    def quantile(self, probability: float) -> float:
        """Return the value that one more exceeds with ``probability``, below a half."""
        low, high = 0.0, FURTHEST
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            beyond = 1 - student_t(middle, self.freedom) > probability
            low, high = (middle, high) if beyond else (low, middle)
        return self.centre + high * self.width


def _excess_kurtosis(values: Sequence[float], centre: float, deviation: float) -> float:
    """Return by how much the fourth moment exceeds that of a normal distribution."""
    if not deviation > LEAST_DEVIATION:
        return 0.0
    return statistics.fmean(((value - centre) / deviation) ** 4 for value in values) - 3


def student_t(score: float, freedom: int) -> float:
    """Return Student's cumulative distribution at ``score``, for whole degrees of freedom.

    The finite sums of Abramowitz & Stegun, *Handbook of Mathematical Functions*, 26.7.3 and 26.7.4.
    """
    angle = math.atan(score / math.sqrt(freedom))
    square = math.cos(angle) ** 2
    term, total = 1.0, 1.0
    for k in range(1, (freedom - 1) // 2 if freedom % 2 else freedom // 2):
        term *= square * (2 * k / (2 * k + 1) if freedom % 2 else (2 * k - 1) / (2 * k))
        total += term
    if freedom % 2:
        rest = math.sin(angle) * math.cos(angle) * total if freedom > 1 else 0.0
        within = 2 / math.pi * (angle + rest)
    else:
        within = math.sin(angle) * total
    return (1 + min(max(within, -1.0), 1.0)) / 2
