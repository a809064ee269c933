"""How good a check is: what its findings on poisoned and on clean fixtures add up to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from encodercheck.intervals import auroc, auroc_interval, surprise, wilson
from encodercheck.report import Direction, Finding, Measurement, Outcome

P_VALUE = "p_value"


@dataclass(frozen=True)
class Judgement:
    """How good one check is, over all fixtures that gave it something to find.

    ``caught`` of ``declared`` poisoned fixtures failed, ``alarms`` of ``clean`` ones did. ``area``
    is the AUROC of the two with its interval, None where one of them is empty; ``ranked_by`` says
    by what: "p_value", "margin" or, of a check that measures nothing, "outcome".
    """

    caught: int
    declared: int
    alarms: int
    clean: int
    inconclusive: int
    errors: int
    ranked_by: str
    area: tuple[float, float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """Return the judgement as JSON-ready values."""
        area = self.area and {"value": self.area[0], "interval": [*self.area[1:]]}
        return {
            "power": _rate(self.caught, self.declared),
            "false_alarms": _rate(self.alarms, self.clean),
            "auroc": area and {**area, "ranked_by": self.ranked_by},
            "inconclusive": self.inconclusive,
            "errors": self.errors,
        }


def judge(
    declared: Sequence[Finding], clean: Sequence[Finding], others: Sequence[Finding] = ()
) -> Judgement:
    """Return how good a check is that found this on poisoned and on clean fixtures.

    ``declared`` are those that it says it catches; the ``others`` are counted and demand nothing.
    """
    outcomes = [finding.outcome for finding in (*declared, *clean, *others)]
    positive, negative = _told(declared), _told(clean)
    ranked_by = _comparable([*positive, *negative])
    return Judgement(
        caught=_failed(positive),
        declared=len(positive),
        alarms=_failed(negative),
        clean=len(negative),
        inconclusive=outcomes.count(Outcome.INCONCLUSIVE),
        errors=outcomes.count(Outcome.ERROR),
        ranked_by=ranked_by,
        area=_area(*([score(f, ranked_by) for f in side] for side in (positive, negative))),
    )


def deciding(finding: Finding) -> Measurement | None:
    """Return the measurement nearest to the wrong side of its limit, or farthest beyond it.

    Where none has a limit it is the last one; None where nothing was measured.
    """
    limited = [m for m in finding.measurements if m.limit is not None]
    if limited:
        return min(limited, key=_relative_margin)
    values = [m for m in finding.measurements if m.name != P_VALUE]
    return values[-1] if values else None


def margin(measurement: Measurement) -> float | None:
    """Return how far a value is within its limit, negative beyond it; None without a limit."""
    if measurement.limit is None:
        return None
    if measurement.direction is Direction.AT_LEAST:
        return measurement.value - measurement.limit
    return measurement.limit - measurement.value


def p_value(finding: Finding) -> float | None:
    """Return the least p-value that a check measured; None where it measured none."""
    found = [m.value for m in finding.measurements if m.name == P_VALUE]
    return min(found, key=lambda p: -1.0 if math.isnan(p) else p) if found else None


def score(finding: Finding, ranked_by: str) -> float:
    """Return how suspicious a finding is, to rank fixtures by; what gave no value is the least."""
    if ranked_by == "outcome":
        return float(finding.outcome is Outcome.FAILED)
    if ranked_by == P_VALUE:
        p = p_value(finding)
        return math.inf if p is not None and math.isnan(p) else surprise(p)
    measurement = deciding(finding)
    if measurement is None or measurement.limit is None:
        return -math.inf
    return -_relative_margin(measurement)


def _comparable(findings: Sequence[Finding]) -> str:
    """Return what findings on different encoders are best ranked by."""
    if any(p_value(finding) is not None for finding in findings):
        return P_VALUE
    limits = (m.limit for finding in findings for m in finding.measurements)
    return "margin" if any(limit is not None for limit in limits) else "outcome"


def _relative_margin(measurement: Measurement) -> float:
    """Return the margin in units of the limit, so that different measurements compare."""
    distance, limit = margin(measurement), measurement.limit
    if distance is None or limit is None or math.isnan(distance):
        # Within no limit, whatever it is.
        return -math.inf
    return distance / abs(limit) if limit and math.isfinite(limit) else distance


def _area(
    positive: Sequence[float], negative: Sequence[float]
) -> tuple[float, float, float] | None:
    if not positive or not negative:
        return None
    return auroc(positive, negative), *auroc_interval(positive, negative)


def _told(findings: Sequence[Finding]) -> list[Finding]:
    """Return those that say something: a crash says nothing of the encoder."""
    return [finding for finding in findings if finding.outcome is not Outcome.ERROR]


def _failed(findings: Sequence[Finding]) -> int:
    return sum(finding.outcome is Outcome.FAILED for finding in findings)


def _rate(hits: int, n: int) -> dict[str, Any]:
    return {"hits": hits, "n": n, "interval": list(wilson(hits, n))}
