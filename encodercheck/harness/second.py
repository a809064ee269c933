"""Two scans of one model that is read in two ways, made one: of each check the worse outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from encodercheck.harness.listener import Listener, Relay
from encodercheck.harness.outcome import GRAVITY
from encodercheck.report import Finding, Outcome, read_with


class SecondListener(Relay):
    """Hears a second scan, and says with every finding how the model was read."""

    def __init__(self, listener: Listener, options: str) -> None:
        super().__init__(listener)
        self._options = options

    def finished(self, finding: Finding) -> None:
        """Pass on how the check ended, and how the model was read."""
        super().finished(marked(finding, self._options))


def marked(finding: Finding, options: str) -> Finding:
    """Return a finding that says with which options the model was read."""
    told = read_with(options)
    return replace(finding, message=f"{told}: {finding.message}" if finding.message else told)


def worse(first: Sequence[Finding], second: Sequence[Finding], options: str) -> list[Finding]:
    """Return the worse of two findings for each check; the second were made with ``options``.

    A check that only one of the scans has a finding for keeps it.
    """
    left = {finding.id: marked(finding, options) for finding in second}
    found = []
    for finding in first:
        other = left.pop(finding.id, finding)
        found.append(other if _rank(other) < _rank(finding) else finding)
    return [*found, *left.values()]


def _rank(finding: Finding) -> float:
    """Return how grave a finding is, the least for the gravest; an excused failure is no pass."""
    excused = GRAVITY.index(Outcome.PASSED) - 0.5
    return GRAVITY.index(finding.outcome) if finding.counts else excused
