"""How scans ended, in words, a symbol and a kind that the style sheet knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from encodercheck.render.words import (
    EXCUSED,
    UNDECIDED,
    excused,
    is_undecided,
    overall_exit_code,
)
from encodercheck.report import Finding, Outcome, Report

SYMBOLS = {
    Outcome.PASSED: "✓",
    Outcome.FAILED: "✕",
    Outcome.INCONCLUSIVE: "?",
    Outcome.ERROR: "!",
}
SEVERITIES = ("critical", "high", "medium", "low", "info")
MEANINGS = {
    0: "no check failed, and at least one passed",
    1: "a check failed",
    2: "no verdict",
}


@dataclass(frozen=True)
class Verdict:
    """A label that never sounds better than the exit code, and what kind of outcome it is."""

    label: str
    kind: str
    symbol: str
    code: int
    reason: str = ""

    @property
    def meaning(self) -> str:
        """What the exit code says, and why where it can be said in general."""
        return MEANINGS[self.code] + (f", {self.reason}" if self.reason else "")


def of_report(report: Report) -> Verdict:
    """Return the verdict of one scan."""
    outcome, code = report.outcome, report.exit_code
    if outcome is Outcome.FAILED:
        return _verdict("Failed", outcome, code)
    if is_undecided(report):
        return replace(_verdict("No verdict", outcome, code), reason=UNDECIDED)
    if code:
        return _verdict("No verdict", outcome if outcome is Outcome.ERROR else _DOUBT, code)
    undecided = any(f.outcome is _DOUBT for f in report.findings)
    # Passed, but not all of it: no green.
    kind = _DOUBT if undecided else Outcome.PASSED
    return Verdict("Passed", kind.value, SYMBOLS[Outcome.PASSED], code)


def of_reports(reports: Sequence[Report]) -> Verdict:
    """Return the verdict of several scans: the first of those that decide the exit code of all."""
    code = overall_exit_code(reports)
    verdicts = [of_report(report) for report in reports]
    # A pass in doubt is shown before one without.
    verdicts.sort(key=lambda verdict: verdict.kind == Outcome.PASSED.value)
    decisive = (verdict for verdict in verdicts if verdict.code == code)
    return next(decisive, _verdict("No verdict", _DOUBT, code))


def tally(findings: Sequence[Finding]) -> str:
    """Say how many checks ended how, as "5 of 8 checks failed, 3 passed, 1 waived"."""
    if not findings:
        return "No check ran"
    counted = [finding for finding in findings if finding.counts]
    counts = Counter(finding.outcome for finding in counted)
    words = {
        Outcome.FAILED: "failed",
        Outcome.ERROR: "ended in an error",
        Outcome.INCONCLUSIVE: "could not decide",
        Outcome.PASSED: "passed",
    }
    parts = [f"{counts[outcome]} {word}" for outcome, word in words.items() if counts[outcome]]
    apart = Counter(excused(finding) for finding in findings if not finding.counts)
    parts += [f"{apart[word]} {word}" for word in EXCUSED if apart[word]]
    first, *rest = parts
    number, _, how = first.partition(" ")
    if len(findings) == 1:
        return f"The only check {how}" if counted else f"The only check is {how}"
    start = f"{number} of {len(findings)} checks {how}" if rest else f"All {number} checks {how}"
    return ", ".join([start, *rest])


def labels(reports: Sequence[Report]) -> str:
    """Say how many scans ended how, as "1 failed, 2 passed"."""
    counts = Counter(of_report(report).label for report in reports)
    words = {"Failed": "failed", "No verdict": "without a verdict", "Passed": "passed"}
    parts = [f"{counts[label]} {word}" for label, word in words.items() if counts[label]]
    return ", ".join(parts) or "Nothing was scanned"


def headline(report: Report) -> Finding | None:
    """Return the finding to read first: of those that decided, the most severe."""
    whole = report.outcome
    decisive = whole if whole in (Outcome.FAILED, Outcome.ERROR) else _DOUBT
    said = [f for f in report.findings if f.outcome is decisive and f.counts]
    return min(said, key=_rank, default=None)


def _rank(finding: Finding) -> int:
    known = finding.severity in SEVERITIES
    return SEVERITIES.index(finding.severity) if known else len(SEVERITIES)


_DOUBT = Outcome.INCONCLUSIVE


def _verdict(label: str, outcome: Outcome, code: int) -> Verdict:
    return Verdict(label, outcome.value, SYMBOLS[outcome], code)
