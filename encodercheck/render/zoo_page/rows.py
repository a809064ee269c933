"""What the page says of a model in one row, and of all of them on top."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from encodercheck.render import words
from encodercheck.render.html import plots, verdicts
from encodercheck.report import Finding, Outcome, Report
from encodercheck.verify.judging import deciding, p_value, score

LONGEST_NAME, LONGEST_MESSAGE, MOST_OTHERS = 300, 160, 12
# Of a finding that did not pass, what became of it.
FATES = {
    Outcome.FAILED: "failed",
    Outcome.ERROR: "ended in an error",
    Outcome.INCONCLUSIVE: "could not decide",
}
# What filters go by, the gravest first. A label is a verdict's.
GROUPS = {"failed": "Failed", "none": "No verdict", "passed": "Passed"}


@dataclass(frozen=True)
class Row:
    """A model: how its scan ended, and what was worst.

    ``link`` leads to its own report, relative to the page; None where there is none. ``check`` is
    the worst check, ``found`` what it measured or said; ``others`` are those that did not pass
    either.
    """

    model: str
    link: str | None
    label: str
    kind: str
    symbol: str
    check: str
    found: str
    p_value: float | None
    others: str
    architecture: str
    parameters: int
    seconds: float

    @property
    def group(self) -> str:
        """What filters know the verdict as: a key of ``GROUPS``."""
        return next(group for group, label in GROUPS.items() if label == self.label)

    @property
    def order(self) -> tuple[int, float, str]:
        """Where the row belongs: what failed first, then what is nearest to failing."""
        chance = math.inf if self.p_value is None else self.p_value
        return list(GROUPS).index(self.group), -1.0 if math.isnan(chance) else chance, self.model

    @property
    def chance(self) -> str:
        """The p-value as people write it."""
        return "" if self.p_value is None else plots.p_value(self.p_value)

    @property
    def size(self) -> str:
        """The number of parameters as people write it."""
        return millions(self.parameters)


@dataclass
class Facts:
    """What holds for the results as a whole: where they are, and what they were computed with."""

    folder: str
    first: str = ""
    last: str = ""
    seconds: float = 0.0
    versions: Counter[str] = field(default_factory=Counter)
    profiles: Counter[str] = field(default_factory=Counter)

    def add(self, report: Report, finished: str) -> None:
        """Take a result into account."""
        self.first = min(filter(None, (self.first, finished)), default="")
        self.last = max(self.last, finished)
        self.seconds += report.seconds
        self.versions[report.versions.get("encodercheck", "")] += 1
        self.profiles[report.profile] += 1


def of(report: Report, *, model: str, link: str | None) -> Row:
    """Return the row of a model, under the name that the user gave it."""
    verdict = verdicts.of_report(report)
    worst = _worst(report)
    known = words.is_known(report.model)
    return Row(
        model=words.cut(model, LONGEST_NAME),
        link=link,
        label=verdict.label,
        kind=verdict.kind,
        symbol=verdict.symbol,
        check=words.cut(worst.id, LONGEST_MESSAGE) if worst else "",
        found=_found(worst) if worst else "",
        p_value=p_value(worst) if worst else None,
        others=_others(report, worst),
        architecture=words.cut(report.model["architecture"], LONGEST_NAME) if known else "",
        parameters=report.model["parameters"],
        seconds=report.seconds,
    )


def millions(count: int) -> str:
    """Return a number of parameters in millions.

    >>> millions(25557032), millions(312000), millions(0)
    ('25.6 M', '0.31 M', '')
    """
    if not count:
        return ""
    million = count / 1e6
    if million < 1:
        return f"{million:.2g} M"
    return f"{million:.1f} M" if million < 100 else f"{million:,.0f} M"


def _worst(report: Report) -> Finding | None:
    """Return the finding that decided; where all is well the one that was nearest to failing."""
    decisive = verdicts.headline(report) if report.exit_code else None
    if decisive is None:
        same = [finding for finding in report.findings if finding.outcome is Outcome.PASSED]
    else:
        wanted = decisive.outcome, decisive.severity
        counted = [finding for finding in report.findings if finding.counts]
        same = [finding for finding in counted if (finding.outcome, finding.severity) == wanted]
    return max(same, key=_suspicion, default=None)


def _suspicion(finding: Finding) -> tuple[float, float]:
    """Return how little a finding looks like one on a clean encoder."""
    by_chance = score(finding, "p_value") if p_value(finding) is not None else -math.inf
    return by_chance, score(finding, "margin")


def _found(finding: Finding) -> str:
    measurement = deciding(finding)
    if measurement is not None and finding.outcome in (Outcome.PASSED, Outcome.FAILED):
        return words.measured(measurement)
    return words.cut(finding.message or FATES.get(finding.outcome, ""), LONGEST_MESSAGE)


def _others(report: Report, worst: Finding | None) -> str:
    """Name the checks that did not pass either, as "EC102 failed, EC301 could not decide"."""
    rest = [
        finding
        for finding in report.findings
        if finding.outcome is not Outcome.PASSED and finding is not worst
    ]
    told = []
    for fate, found in _by_fate(rest).items():
        names = [words.cut(finding.id, LONGEST_MESSAGE) for finding in found[:MOST_OTHERS]]
        more = [f"{len(found) - MOST_OTHERS} more"] if len(found) > MOST_OTHERS else []
        told.append(f"{', '.join(names + more)} {fate}")
    return " · ".join(told)


def _by_fate(findings: list[Finding]) -> dict[str, list[Finding]]:
    fates: dict[str, list[Finding]] = {}
    for finding in findings:
        fate = FATES[finding.outcome] if finding.counts else words.excused(finding)
        fates.setdefault(fate, []).append(finding)
    return fates
