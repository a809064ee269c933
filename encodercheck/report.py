"""What a scan found: outcomes, measurements, findings, and the exit code they add up to."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from encodercheck.memory import Memory

SCHEMA = "encodercheck.report/1"


class Outcome(str, enum.Enum):
    """How a check, or a whole scan, ended."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"

    __str__ = str.__str__


class Direction(str, enum.Enum):
    """On which side of its limit a value is good."""

    AT_LEAST = "at_least"
    AT_MOST = "at_most"

    __str__ = str.__str__


@dataclass(frozen=True)
class Measurement:
    """One measured value against its limit.

    ``limit`` and ``direction`` are None for a value that is reported for information only.
    """

    name: str
    value: float
    limit: float | None = None
    direction: Direction | None = None

    @property
    def outcome(self) -> Outcome:
        """FAILED unless the value is provably within its limit, so that NaN fails."""
        if self.limit is None:
            return Outcome.PASSED
        within = (
            self.value >= self.limit
            if self.direction is Direction.AT_LEAST
            else self.value <= self.limit
        )
        return Outcome.PASSED if within else Outcome.FAILED

    def to_dict(self) -> dict[str, Any]:
        """Return the measurement as the report's JSON has it; a non-finite value is a string."""
        return {
            "name": self.name,
            "value": _jsonable(self.value),
            "limit": self.limit if self.limit is None else _jsonable(self.limit),
            "direction": self.direction and self.direction.value,
            "outcome": self.outcome.value,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measurement:
        """Return what :meth:`to_dict` was made from.

        Raises:
            KeyError, TypeError, ValueError: it was not.
        """
        limit, direction = values["limit"], values["direction"]
        return cls(
            str(values["name"]),
            float(values["value"]),
            None if limit is None else float(limit),
            None if direction is None else Direction(direction),
        )


@dataclass(frozen=True)
class Waiver:
    """A failure that somebody has looked at and accepts, for a reason and until a day."""

    reason: str
    expires: date

    def to_dict(self) -> dict[str, Any]:
        """Return the waiver as the report's JSON has it."""
        return {"reason": self.reason, "expires": self.expires.isoformat()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Waiver:
        """Return what :meth:`to_dict` was made from.

        Raises:
            KeyError, TypeError, ValueError: it was not.
        """
        return cls(str(values["reason"]), date.fromisoformat(values["expires"]))


@dataclass(frozen=True)
class Finding:
    """What one check said.

    A ``waiver`` takes a failure out of the verdict; it stays in the report.
    """

    id: str
    check: str
    severity: str
    outcome: Outcome
    message: str = ""
    seconds: float = 0.0
    measurements: tuple[Measurement, ...] = ()
    witness: str | None = None
    title: str = ""
    details: str = field(default="", compare=False)
    """A traceback or captured output, for the console; never part of the JSON."""
    waiver: Waiver | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as the report's JSON has it."""
        return {
            "id": self.id,
            "check": self.check,
            "title": self.title,
            "severity": self.severity,
            "outcome": self.outcome.value,
            "message": self.message,
            "seconds": round(self.seconds, 3),
            "measurements": [measurement.to_dict() for measurement in self.measurements],
            "witness": self.witness,
            "waiver": self.waiver and self.waiver.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Finding:
        """Return what :meth:`to_dict` was made from, without the details.

        Raises:
            KeyError, TypeError, ValueError: it was not.
        """
        return cls(
            id=values["id"],
            check=values["check"],
            severity=values["severity"],
            outcome=Outcome(values["outcome"]),
            message=values["message"],
            seconds=float(values["seconds"]),
            measurements=tuple(map(Measurement.from_dict, values["measurements"])),
            witness=values["witness"],
            title=values["title"],
            waiver=Waiver.from_dict(waiver) if (waiver := values.get("waiver")) else None,
        )


@dataclass(frozen=True)
class Report:
    """The result of one scan."""

    model: dict[str, Any]
    images: dict[str, Any]
    findings: tuple[Finding, ...]
    seed: int
    device: str
    versions: dict[str, str]
    seconds: float
    profile: str = "standard"
    strict: bool = False
    memory: Memory = field(default_factory=Memory)
    compared_with: str = ""
    """Which clean encoders limits come from, in words."""

    @property
    def outcome(self) -> Outcome:
        """FAILED beats ERROR beats PASSED; a scan in which nothing passed is INCONCLUSIVE.

        What was waived does not count.
        """
        return overall(self._counted)

    @property
    def exit_code(self) -> int:
        """0 passed, 1 a check failed, 2 no verdict."""
        return exit_code(self._counted, strict=self.strict)

    @property
    def _counted(self) -> list[Outcome]:
        return [finding.outcome for finding in self.findings if finding.waiver is None]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values (schema ``encodercheck.report/1``)."""
        return {
            "schema": SCHEMA,
            "outcome": self.outcome.value,
            "exit_code": self.exit_code,
            "model": self.model,
            "images": self.images,
            "profile": self.profile,
            "strict": self.strict,
            "seed": self.seed,
            "device": self.device,
            "versions": self.versions,
            "seconds": round(self.seconds, 3),
            "memory": self.memory.to_dict(),
            "compared_with": self.compared_with,
            "findings": [finding.to_dict() for finding in self.findings],
        }


def _jsonable(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)


def overall(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the outcome of a scan whose checks ended with ``outcomes``."""
    seen = set(outcomes)
    for outcome in (Outcome.FAILED, Outcome.ERROR, Outcome.PASSED):
        if outcome in seen:
            return outcome
    return Outcome.INCONCLUSIVE


def exit_code(outcomes: Sequence[Outcome], *, strict: bool = False) -> int:
    """Return 0, 1 or 2: nothing failed and something passed; a check failed; no verdict."""
    verdict = overall(outcomes)
    if verdict is Outcome.FAILED:
        return 1
    if verdict is not Outcome.PASSED or (strict and Outcome.INCONCLUSIVE in outcomes):
        return 2
    return 0
