"""Axes of plots: where on a line values lie, and which of them are written under it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

# What is left free at both ends, as a part of the width.
PADDING = 0.06
# Beyond this the difference of two values may be infinite.
LARGEST = 1e300


@dataclass(frozen=True)
class Scale:
    """How values become places on a line, which make good labels, best first, and a word on it."""

    forward: Callable[[float], float]
    ticks: tuple[float, ...]
    hint: str = ""


def _left_over(gain: float) -> float:
    return -math.log10(max(1 - gain, 1e-6))


# A gain is read by what it leaves: 0.99 is as far beyond 0.9 as that is beyond 0.
GAIN = Scale(
    _left_over,
    (0.9, 0.99, 0.999, 0.9999, 0.0, 0.5, 0.95, 0.995, -1.0, 0.8, 0.98, 0.2, 0.998, 0.7, 0.97),
    "The nearer to 1 the wider the axis: it is logarithmic in what is left to 1.",
)
SIZE = Scale(
    lambda size: math.log10(max(size, 1e-6)),
    tuple(digit / 10**power for digit in (1, 2, 5) for power in range(7)),
    "The axis is logarithmic.",
)
SCALES = {"gain": GAIN, "size": SIZE}


@dataclass(frozen=True)
class Axis:
    """A line from the lowest to the highest of some values, both in the scale's own measure."""

    scale: Scale
    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float], *, scale: str = "") -> Axis:
        """Return an axis that holds all finite ``values``; a linear one unless ``scale`` is known.

        A linear axis of values that are all positive, or all negative, begins at zero.
        """
        finite = [min(max(v, -LARGEST), LARGEST) for v in values if math.isfinite(v)]
        known = SCALES.get(scale)
        if known is None:
            finite.append(0.0)
            chosen = Scale(lambda value: value, _even(min(finite), max(finite)))
        else:
            chosen = known
        places = [chosen.forward(value) for value in finite] or [0.0]
        room = (max(places) - min(places)) or 1.0
        bounded = known is None and min(finite) == 0
        low = min(places) - (0.015 if bounded else PADDING) * room
        return cls(chosen, low, max(places) + PADDING * room)

    @classmethod
    def between(cls, low: float, high: float) -> Axis:
        """Return a linear axis from ``low`` to ``high``."""
        return cls(Scale(lambda value: value, _even(low, high)), low, high)

    def part(self, value: float) -> float:
        """Return where ``value`` lies, from 0 to 1; what is beyond the axis lies at its end."""
        if math.isinf(value):
            return float(value > 0)
        place = (self.scale.forward(value) - self.low) / (self.high - self.low)
        return min(max(place, 0.0), 1.0)

    def ticks(self, gap: float) -> list[float]:
        """Return the values to write under the axis, none nearer to another than ``gap``."""
        chosen: list[float] = []
        for tick in self.scale.ticks:
            within = self.low <= self.scale.forward(tick) <= self.high
            if within and all(abs(self.part(tick) - self.part(t)) >= gap for t in chosen):
                chosen.append(tick)
        return chosen


def _even(low: float, high: float) -> tuple[float, ...]:
    """Return round values that divide what is between into four parts or more."""
    if not high - low > 1 / LARGEST:
        return (low,)
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(factor * power for factor in (1, 2, 5) if factor * power <= rough * 1.0001)
    first, last = math.ceil(low / step), math.floor(high / step)
    return tuple(step * count for count in range(first, last + 1))


def histogram(values: Sequence[float], axis: Axis, bins: int) -> list[float]:
    """Return which part of ``values`` falls into each of ``bins`` equal parts of the axis."""
    counts = [0] * bins
    for value in values:
        counts[min(int(axis.part(value) * bins), bins - 1)] += 1
    return [count / max(1, len(values)) for count in counts]
