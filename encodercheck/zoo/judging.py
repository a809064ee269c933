"""From what was measured to a verdict: waivers, severities, and what the user counts.

None of it needs the model again, so that a result which is kept can be judged anew by other rules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from encodercheck.config.rules import NO_RULES, Rules
from encodercheck.known.baseline import Baseline
from encodercheck.report import Finding, Report


@dataclass(frozen=True)
class Judge:
    """How to judge: by which rules, how strictly, and compared with which earlier scan."""

    rules: Rules = NO_RULES
    strict: bool = False
    baseline: Baseline | None = None

    @property
    def measuring(self) -> Rules:
        """The part of the rules that decides what is measured: what runs, and its limits.

        A scan that ends at the first failure goes by all of them.
        """
        rules = self.rules
        if rules.fail_fast:
            return rules
        return Rules(select=rules.select, ignore=rules.ignore, limits=rules.limits)

    def __call__(self, measured: Report) -> Report:
        """Return the report of what was measured by :attr:`measuring`."""
        judged = replace(
            measured,
            findings=tuple(self._judged(f, measured.model["sha256"]) for f in measured.findings),
            strict=self.strict,
            rules=self.rules.describe() if measured.rules else {},
        )
        if self.baseline is None:
            return judged
        return replace(judged, baseline=self.baseline.compare(judged))

    def _judged(self, finding: Finding, sha256: str) -> Finding:
        severity = self.rules.severity(finding.id, finding.severity)
        return self.rules.judge(replace(finding, severity=severity), sha256=sha256)
