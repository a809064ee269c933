"""What a suite is worth: its findings on clean and poisoned fixtures, held against its claims.

A check claims to fail on the poisoned fixtures that its marker ``catches``, and on no clean one.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any

from encodercheck.report import Finding, Measurement, Outcome
from encodercheck.verify.judging import Judgement, deciding, judge, margin, p_value

if TYPE_CHECKING:
    from encodercheck.harness.listener import CheckInfo

SCHEMA = "encodercheck.verify/1"
DECIDED = (Outcome.PASSED, Outcome.FAILED)


@dataclass(frozen=True)
class Row:
    """A fixture and what the checks found on it, by id; nothing where it was refused.

    ``refused`` says why its certificate refused it. ``cached`` are the ids of the checks whose
    findings are an earlier run's.
    """

    fixture: str
    seed: int
    poisoned: bool
    findings: Mapping[str, Finding] = field(default_factory=dict)
    refused: str = ""
    sha256: str = ""
    cached: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The fixture as ``encodercheck scan fixture:NAME`` takes it."""
        return f"{self.fixture}@{self.seed}"

    def declared(self, check: CheckInfo) -> bool:
        """Whether ``check`` says that it catches this fixture; no clean one can be caught."""
        return self.poisoned and any(fnmatchcase(self.fixture, glob) for glob in check.catches)


class FaultKind(str, enum.Enum):
    """What can be wrong with a check on a fixture."""

    MISSED = "missed"
    FALSE_ALARM = "false_alarm"
    ERROR = "error"
    UNTESTED = "untested"

    __str__ = str.__str__


WRONG = (FaultKind.MISSED, FaultKind.FALSE_ALARM)


@dataclass(frozen=True)
class Fault:
    """A check that broke its claim, or could not be held to it.

    ``fixture`` is a row's name; where all that a claim is about were refused, it is the claim.
    """

    kind: FaultKind
    check: str
    fixture: str
    outcome: Outcome | None = None
    message: str = ""
    measurement: Measurement | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fault as JSON-ready values."""
        return {
            "kind": self.kind.value,
            "check": self.check,
            "fixture": self.fixture,
            "outcome": self.outcome and self.outcome.value,
            "message": self.message,
            "measurement": self.measurement and self.measurement.to_dict(),
        }


@dataclass(frozen=True)
class Verification:
    """Every check on every fixture; ``settings`` say how it was measured."""

    checks: tuple[CheckInfo, ...]
    rows: tuple[Row, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @cached_property
    def judgements(self) -> dict[str, Judgement]:
        """How good each check is, by id."""
        return {check.id: _judged(check, self.rows) for check in self.checks}

    @cached_property
    def faults(self) -> list[Fault]:
        """What breaks the claims of the checks, and what leaves them open."""
        found = [fault for check in self.checks for fault in _faults(check, self.rows)]
        return [*found, *self._strays()]

    def _strays(self) -> Iterator[Fault]:
        """Yield what ended a run that was no check: pytest, where something brought it down."""
        known = {check.id for check in self.checks}
        for row in self.rows:
            for id_, found in row.findings.items():
                if id_ not in known:
                    yield Fault(FaultKind.ERROR, id_, row.name, found.outcome, found.message)

    @property
    def decided(self) -> bool:
        """Whether any check passed or failed on anything."""
        findings = (finding for row in self.rows for finding in row.findings.values())
        return any(finding.outcome in DECIDED for finding in findings)

    @property
    def exit_code(self) -> int:
        """0 every claim holds, 1 a check missed or fired on a clean fixture, 2 no verdict."""
        kinds = {fault.kind for fault in self.faults}
        if kinds.intersection(WRONG):
            return 1
        return 2 if kinds or not self.decided else 0

    @property
    def outcome(self) -> Outcome:
        """The exit code in words."""
        return (Outcome.PASSED, Outcome.FAILED, Outcome.ERROR)[self.exit_code]

    def to_dict(self) -> dict[str, Any]:
        """Return it all as JSON-ready values (schema ``encodercheck.verify/1``)."""
        return {
            "schema": SCHEMA,
            "outcome": self.outcome.value,
            "exit_code": self.exit_code,
            **self.settings,
            "seconds": round(self.seconds, 3),
            "checks": [
                {
                    "id": check.id,
                    "check": check.check,
                    "title": check.title,
                    "severity": check.severity,
                    "catches": list(check.catches),
                    **self.judgements[check.id].to_dict(),
                }
                for check in self.checks
            ],
            "fixtures": [
                {
                    "fixture": row.fixture,
                    "seed": row.seed,
                    "poisoned": row.poisoned,
                    "refused": row.refused or None,
                    "sha256": row.sha256 or None,
                }
                for row in self.rows
            ],
            "rows": [cell for row in self.rows for cell in _cells(row, self.checks)],
            "faults": [fault.to_dict() for fault in self.faults],
        }


def _judged(check: CheckInfo, rows: Sequence[Row]) -> Judgement:
    found = [(row, row.findings[check.id]) for row in rows if check.id in row.findings]
    return judge(
        declared=[finding for row, finding in found if row.declared(check)],
        clean=[finding for row, finding in found if not row.poisoned],
        others=[finding for row, finding in found if row.poisoned and not row.declared(check)],
    )


def _faults(check: CheckInfo, rows: Sequence[Row]) -> Iterator[Fault]:
    for row in rows:
        finding = row.findings.get(check.id)
        kind = None if finding is None else _fault_kind(finding, row, check)
        if finding is not None and kind is not None:
            yield Fault(
                kind, check.id, row.name, finding.outcome, finding.message, deciding(finding)
            )
    for glob in check.catches:
        meant = [row for row in rows if row.poisoned and fnmatchcase(row.fixture, glob)]
        if meant and all(row.refused for row in meant):
            names = ", ".join(row.name for row in meant)
            yield Fault(FaultKind.UNTESTED, check.id, glob, message=names)


def _fault_kind(finding: Finding, row: Row, check: CheckInfo) -> FaultKind | None:
    if finding.outcome is Outcome.ERROR:
        return FaultKind.ERROR
    failed = finding.outcome is Outcome.FAILED
    if row.declared(check) and not failed:
        return FaultKind.MISSED
    return FaultKind.FALSE_ALARM if failed and not row.poisoned else None


def _cells(row: Row, checks: Sequence[CheckInfo]) -> Iterator[dict[str, Any]]:
    for check in checks:
        finding = row.findings.get(check.id)
        if finding is None:
            continue
        measurement = deciding(finding)
        distance = margin(measurement) if measurement else None
        p = p_value(finding)
        yield {
            "fixture": row.fixture,
            "seed": row.seed,
            "poisoned": row.poisoned,
            "check": check.id,
            "declared": row.declared(check),
            "outcome": finding.outcome.value,
            "message": finding.message,
            "deciding": measurement and measurement.to_dict(),
            "margin": _jsonable(distance),
            "p_value": _jsonable(p),
            "seconds": round(finding.seconds, 3),
            "cached": check.id in row.cached,
            "measurements": [m.to_dict() for m in finding.measurements],
        }


def _jsonable(number: float | None) -> float | str | None:
    return number if number is None or math.isfinite(number) else str(number)
