"""Waivers: failures that somebody has looked at and accepts, for one model, one check and a time.

A waiver names the weights by their hash, so that it never covers another model, and the day on
which it ends, so that nothing is accepted for good by neglect. The failure stays in the report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date

from encodercheck.report import Finding, Outcome, Waiver
from encodercheck.suggest import did_you_mean

KEYS = ("model", "check", "reason", "expires")
PREFIX = "sha256:"
SHA256 = re.compile("[0-9a-f]{64}")
MODEL_IS = '"sha256:" and the 64 hexadecimal digits that the report has'


@dataclass(frozen=True)
class ModelWaiver:
    """What is accepted: that ``check`` fails on the weights with this ``sha256``.

    ``sha256`` is as in a report, 64 hexadecimal digits; ``check`` is a check's whole id. The
    waiver holds up to and including the day on which it ``expires``.
    """

    sha256: str
    check: str
    reason: str
    expires: date

    def __post_init__(self) -> None:
        if not isinstance(self.sha256, str) or not SHA256.fullmatch(self.sha256):
            raise ValueError(f"model: expected {MODEL_IS}, not {self.sha256!r}")
        if not _is_line(self.check):
            raise ValueError(f"check: expected the id of a check, not {self.check!r}")
        if not _is_line(self.reason):
            raise ValueError(f"reason: expected a line of text that says why, not {self.reason!r}")
        # A datetime is a date to Python.
        if type(self.expires) is not date:
            raise ValueError(
                f"expires: expected a date without quotes, as 2027-03-01, not {self.expires!s:.40}"
            )

    @classmethod
    def from_table(cls, table: object) -> ModelWaiver:
        """Return the waiver that a table of a configuration file describes.

        Raises:
            ValueError: it describes none; the message says what is wrong.
        """
        if not isinstance(table, dict):
            raise ValueError(f"expected a table of {', '.join(KEYS)}, not {table!r:.40}")
        for name in table:
            if name not in KEYS:
                raise ValueError(f"unknown key {name!r}; {did_you_mean(name, KEYS)}")
        missing = [name for name in KEYS if name not in table]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}; a waiver has {', '.join(KEYS)}")
        model = table["model"]
        if not isinstance(model, str) or not model.startswith(PREFIX):
            raise ValueError(f"model: expected {MODEL_IS}, not {model!r:.80}")
        return cls(model.removeprefix(PREFIX), table["check"], table["reason"], table["expires"])

    def covers(self, finding: Finding, sha256: str) -> bool:
        """Tell whether this is about ``finding`` on the model with these weights."""
        return (self.sha256, self.check) == (sha256, finding.id)

    def to_dict(self) -> dict[str, str]:
        """Return the waiver as JSON-ready values."""
        return {
            "model": f"{PREFIX}{self.sha256}",
            "check": self.check,
            "reason": self.reason,
            "expires": self.expires.isoformat(),
        }

    def to_toml(self, table: str) -> str:
        """Return the waiver as an entry of the array of tables called ``table``."""
        # JSON's strings are TOML's, as long as there are no control characters in them.
        model, check, reason = (
            json.dumps(text, ensure_ascii=False)
            for text in (f"{PREFIX}{self.sha256}", self.check, self.reason)
        )
        return (
            f"[[{table}]]\nmodel = {model}\ncheck = {check}\nreason = {reason}\n"
            f"expires = {self.expires.isoformat()}\n"
        )


def _is_line(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def apply(waivers: Iterable[ModelWaiver], finding: Finding, *, sha256: str, today: date) -> Finding:
    """Return ``finding`` with the waiver that covers it; an expired one is told of instead.

    Only a failure is ever waived: an error or an inconclusive check is no failure that somebody
    could have looked at.
    """
    if finding.outcome is not Outcome.FAILED:
        return finding
    covering = [waiver for waiver in waivers if waiver.covers(finding, sha256)]
    if not covering:
        return finding
    # Of several, as after a renewal, the one that holds the longest.
    last = max(covering, key=lambda waiver: waiver.expires)
    if last.expires >= today:
        return replace(finding, waiver=Waiver(last.reason, last.expires))
    expired = f"its waiver expired on {last.expires}: {last.reason}"
    return replace(finding, message=f"{finding.message}; {expired}".removeprefix("; "))


def unneeded(
    waivers: Sequence[ModelWaiver], findings: Sequence[Finding], *, sha256: str
) -> list[ModelWaiver]:
    """Return the waivers for this model whose check has passed."""
    passed = [finding for finding in findings if finding.outcome is Outcome.PASSED]
    return [
        waiver for waiver in waivers if any(waiver.covers(finding, sha256) for finding in passed)
    ]
