"""How suspicious a whole scan is: how often a clean encoder looks as bad in any check."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LEAST = 1e-6


@dataclass(frozen=True)
class Suspicion:
    """The probability that a clean encoder is at least this suspicious in any check of the suite.

    ``low`` and ``high`` are its 95 % interval, ``encoders`` how many clean encoders it comes from.
    Encoders of the same architecture, where they are known, take no part in it.
    """

    probability: float
    low: float
    high: float
    encoders: int

    def sentence(self) -> str:
        """Say it: "by the reference bank, a clean encoder looks this suspicious 1 time in 400"."""
        seldom, often = _times(self.low), _times(self.high)
        return (
            "by the reference bank, a clean encoder looks this suspicious 1 time in "
            f"{_times(self.probability)} (95 %: {often} to {seldom}; "
            f"from {self.encoders} clean encoders)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as the report's JSON has it."""
        return {
            "probability": self.probability,
            "low": self.low,
            "high": self.high,
            "encoders": self.encoders,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Suspicion:
        """Return what :meth:`to_dict` was made from.

        Raises:
            KeyError, TypeError, ValueError: it was not.
        """
        chance, low, high = (float(values[name]) for name in ("probability", "low", "high"))
        encoders = values["encoders"]
        if type(encoders) is not int or not all(0 <= one <= 1 for one in (chance, low, high)):
            raise ValueError("its suspicion is no probability")
        return cls(chance, low, high, encoders)


def _times(probability: float) -> str:
    if probability < LEAST:
        return f"more than {round(1 / LEAST):,}"
    times = 1 / probability
    if times < 9.95:
        return f"{times:.2g}"
    digits = 10 ** (math.floor(math.log10(times)) - 1)
    return f"{round(times / digits) * digits:,}"
