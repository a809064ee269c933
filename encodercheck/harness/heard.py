"""What is known of a scan while it runs: the checks that are to run, and how some have ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from encodercheck.harness.listener import CheckInfo, Listener, Relay
from encodercheck.harness.outcome import GRAVITY, not_reported
from encodercheck.report import Finding


class Heard(Relay):
    """Passes everything on to another listener, and keeps the worst that was found of each check.

    A model that is read in two ways is scanned twice.
    """

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener)
        self._infos: dict[str, CheckInfo] = {}
        self._findings: dict[str, Finding] = {}

    def collected(self, checks: Sequence[CheckInfo]) -> None:
        """Note what is going to run."""
        self._infos |= {info.id: info for info in checks}
        super().collected(checks)

    def finished(self, finding: Finding) -> None:
        """Keep how the check ended, unless it has ended worse before."""
        known = self._findings.get(finding.id, finding)
        worse = min(known, finding, key=lambda found: GRAVITY.index(found.outcome))
        self._findings[finding.id] = worse
        super().finished(finding)

    def findings(self, reason: str) -> list[Finding]:
        """Return a finding for each check; ``reason`` is why there is none of some yet.

        Those are errors, and one more says that the scan was cut short: it has not passed.
        """
        found = [
            self._findings.get(id_) or not_reported(info, reason)
            for id_, info in self._infos.items()
        ]
        extra = [finding for id_, finding in self._findings.items() if id_ not in self._infos]
        cut = not_reported(CheckInfo("scan", "scan", "The scan went through.", "critical"), reason)
        return [*found, *extra, replace(cut, message=reason)]
