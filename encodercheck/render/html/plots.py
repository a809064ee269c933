"""What a plot shows, in percent of its width: the templates only draw it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from encodercheck.exhibits import Comparison, Cosines
from encodercheck.render.html.scales import Axis, histogram
from encodercheck.render.words import number
from encodercheck.report import Direction, Measurement, Outcome

BINS = 25
# Labels nearer to each other than this part of the width would touch on a phone; where nothing is
# compared a plot stands beside its value, and is narrow.
GAP = 0.15
NARROW_GAP = 0.3
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Mark:
    """A place on the axis, in percent, with a label that stays within the plot."""

    x: float
    label: str = ""

    @property
    def anchor(self) -> str:
        """Where the label begins: at the place, before it, or with its middle on it."""
        return "start" if self.x < 8 else "end" if self.x > 92 else "middle"


@dataclass(frozen=True)
class Plot:
    """A measurement on its axis.

    ``bad`` is the part of the axis where it fails, (from, width); ``clean`` what clean encoders
    measured; ``value`` None where it is no number.
    """

    value: Mark | None
    limit: Mark | None
    bad: tuple[float, float] | None
    clean: list[Mark]
    ticks: list[Mark]
    failed: bool
    title: str
    description: str
    hint: str


@dataclass(frozen=True)
class Histograms:
    """Two distributions on one axis; ``bars`` are (from, width, height), all in percent."""

    clean: list[tuple[float, float, float]]
    stamped: list[tuple[float, float, float]]
    clean_mean: str
    stamped_mean: str
    ticks: list[Mark]
    title: str
    description: str


def measured(measurement: Measurement, comparison: Comparison | None) -> Plot | None:
    """Return how to draw a value; None where there is nothing to draw it against."""
    limit = measurement.limit if _finite(measurement.limit) else None
    clean = [value for value in comparison.clean if math.isfinite(value)] if comparison else []
    if limit is None and not clean:
        return None
    known = [measurement.value, *clean, *([] if limit is None else [limit])]
    axis = Axis.over(known, scale=comparison.scale if comparison else "")
    at_least = measurement.direction is Direction.AT_LEAST
    return Plot(
        value=None if math.isnan(measurement.value) else _mark(axis, measurement.value),
        limit=None if limit is None else _mark(axis, limit, bound(measurement)),
        bad=None if limit is None else _bad(axis, limit, below=at_least),
        clean=[_mark(axis, value) for value in clean],
        ticks=_ticks(axis, GAP if clean else NARROW_GAP),
        failed=measurement.outcome is Outcome.FAILED,
        title=f"{measurement.name}: {number(measurement.value)}",
        description=_described(measurement, limit, clean),
        hint=axis.scale.hint,
    )


def histograms(cosines: Cosines) -> Histograms:
    """Return how to draw the cosines without and with a trigger."""
    clean, stamped = _finite_cosines(cosines.clean), _finite_cosines(cosines.stamped)
    axis = Axis.between(math.floor(10 * min([0.0, *clean, *stamped])) / 10, 1.0)
    means = [statistics.fmean(values) if values else math.nan for values in (clean, stamped)]
    return Histograms(
        clean=_bars(clean, axis),
        stamped=_bars(stamped, axis),
        clean_mean=number(means[0]),
        stamped_mean=number(means[1]),
        ticks=_ticks(axis, GAP),
        title="Cosines of pairs of images",
        description=(
            f"Two histograms of the cosine between embeddings, over all pairs of {cosines.images} "
            f"images. Without the trigger the mean is {number(means[0])}, with it "
            f"{number(means[1])}."
        ),
    )


def p_value(chance: float) -> str:
    """Return a p-value as people write it: 0.02, 1.2×10⁻⁵, less than 10⁻¹²."""
    if not chance < 1e-3:
        return number(chance)
    if chance < 1e-12:
        return "less than 10⁻¹²"
    digits, _, power = f"{chance:.1e}".partition("e")
    return f"{digits}×10" + str(int(power)).translate(SUPERSCRIPT)


def bound(measurement: Measurement) -> str:
    """Say how a value lies to its limit, as "at most 0.9" or "above its limit, 0.9"."""
    if measurement.limit is None:
        return ""
    at_least, limit = measurement.direction is Direction.AT_LEAST, number(measurement.limit)
    if measurement.outcome is Outcome.FAILED and not math.isnan(measurement.value):
        return f"{'below' if at_least else 'above'} its limit, {limit}"
    side = "at least" if at_least else "at most"
    # No number is within any limit.
    return f"not {side} {limit}" if measurement.outcome is Outcome.FAILED else f"{side} {limit}"


def _mark(axis: Axis, value: float, label: str = "") -> Mark:
    return Mark(round(100 * axis.part(value), 2), label or number(value))


def _ticks(axis: Axis, gap: float) -> list[Mark]:
    return [_mark(axis, tick, f"{tick:.4g}") for tick in axis.ticks(gap)]


def _bad(axis: Axis, limit: float, *, below: bool) -> tuple[float, float]:
    edge = round(100 * axis.part(limit), 2)
    return (0.0, edge) if below else (edge, round(100 - edge, 2))


def _described(measurement: Measurement, limit: float | None, clean: Sequence[float]) -> str:
    parts = []
    if limit is not None:
        within = "" if measurement.outcome is Outcome.FAILED else "within its limit, "
        parts.append(f"The value is {within}{bound(measurement)}.")
    if clean:
        span = f"from {number(min(clean))} to {number(max(clean))}"
        parts.append(f"{len(clean)} clean encoders measured {span}.")
    return " ".join(parts)


def _bars(values: Sequence[float], axis: Axis) -> list[tuple[float, float, float]]:
    shares = histogram(values, axis, BINS)
    tallest = max(shares) or 1.0
    width = 100 / BINS
    return [
        (round(i * width, 2), round(width, 2), round(100 * share / tallest, 1))
        for i, share in enumerate(shares)
        if share
    ]


def _finite_cosines(values: Sequence[float]) -> list[float]:
    # Rounding takes them a little beyond 1.
    return [min(max(value, -1.0), 1.0) for value in values if math.isfinite(value)]


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
