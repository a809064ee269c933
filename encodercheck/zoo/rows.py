"""What is said of each of many models, and of all of them: a line and an exit code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from encodercheck.render.words import verdict
from encodercheck.report import Outcome, Report
from encodercheck.zoo.results import BADNESS


@dataclass(frozen=True)
class Row:
    """What is said of a model in the end; ``reason`` is the first thing that is wrong with it."""

    number: int
    model: str
    verdict: str
    outcome: Outcome
    exit_code: int
    seconds: float
    reason: str = ""
    failed: tuple[str, ...] = ()
    cached: bool = False


def row_of(number: int, model: str, report: Report, *, cached: bool = False) -> Row:
    """Return what is said of a report in one line."""
    bad = [f for f in report.findings if f.counts and f.outcome is not Outcome.PASSED]
    # What decides the verdict first.
    bad.sort(key=lambda finding: finding.outcome is not report.outcome)
    wrong = [finding for finding in bad if finding.outcome is not Outcome.INCONCLUSIVE]
    told = (wrong or bad)[:1] if report.exit_code else []
    return Row(
        number=number,
        model=model,
        verdict=verdict(report),
        outcome=report.outcome,
        exit_code=report.exit_code,
        seconds=report.seconds,
        reason=told[0].message if told else "",
        failed=tuple(finding.id for finding in wrong),
        cached=cached,
    )


def worst(codes: Iterable[int]) -> int:
    """Return the exit code of several scans: 1 beats 2 beats 0; there is no verdict in nothing.

    >>> worst([0, 2, 1]), worst([0, 2]), worst([])
    (1, 2, 2)
    """
    return max(codes, key=BADNESS.__getitem__, default=2)
