"""What a scan found: outcomes, measurements, findings, and the exit code they add up to."""

from __future__ import annotations

import enum
import math
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib import metadata
from typing import TYPE_CHECKING, Any

from encodercheck.exhibits import Exhibit
from encodercheck.memory import Memory
from encodercheck.suspicion import Suspicion

if TYPE_CHECKING:
    from encodercheck.known.baseline import Difference

SCHEMA = "encodercheck.report/1"
UNREADABLE = "EC000"
"""The id of the finding of a scan that could not start."""
SEARCHES = re.compile(r"(EC102|EC2\d\d)(\[.*\])?", re.DOTALL)
"""The ids of the checks that search for triggers. By id, so that saved reports are judged alike."""
NOTHING_KNOWN: dict[str, Any] = {
    "sha256": "",
    "architecture": "unknown",
    "structure": None,
    "provenance": "",
    "notes": [],
    "claims": [],
    "read_also_with": "",
    "text_tower": None,
    "image_size": 0,
    "mean": [],
    "std": [],
    "preprocessing": "",
    "embedding_dim": 0,
    "parameters": 0,
}
"""What a report says of a model that could not be read, beside its path."""


def read_with(options: str) -> str:
    """Return how a finding's message begins where the model was read with other options."""
    return f"read with {options}"


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

    A ``waiver`` takes a failure out of the verdict, and so does that it is ``minor``: of a severity
    that the user does not count. It stays in the report.
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
    exhibits: tuple[Exhibit, ...] = field(default=(), compare=False, repr=False)
    """What formats that can draw show beside the numbers; never part of the JSON."""
    minor: bool = False

    @property
    def counts(self) -> bool:
        """Whether the verdict goes by this; only a failure can be taken out of it."""
        excused = self.waiver is not None or self.minor
        return self.outcome is not Outcome.FAILED or not excused

    @property
    def searches(self) -> bool:
        """Whether the check searches for a trigger."""
        return SEARCHES.fullmatch(self.id) is not None

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
            "minor": self.minor,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Finding:
        """Return what :meth:`to_dict` was made from, without the details.

        Raises:
            KeyError, TypeError, ValueError: it was not.
        """
        witness = values["witness"]
        return cls(
            id=_text(values, "id"),
            check=_text(values, "check"),
            severity=_text(values, "severity"),
            outcome=Outcome(values["outcome"]),
            message=_text(values, "message"),
            seconds=_seconds(values),
            measurements=tuple(map(Measurement.from_dict, values["measurements"])),
            witness=None if witness is None else _text(values, "witness"),
            title=_text(values, "title"),
            waiver=Waiver.from_dict(waiver) if (waiver := values.get("waiver")) else None,
            minor=values.get("minor") is True,
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
    rules: dict[str, Any] = field(default_factory=dict)
    """What the user decided about checks, as ``Rules.describe`` has it."""
    baseline: Difference | None = None
    """What has changed since an earlier scan."""
    suspicion: Suspicion | None = None
    """How often a clean encoder looks as suspicious; None where nothing could be compared."""

    @classmethod
    def unreadable(
        cls,
        model: str,
        reason: str,
        *,
        seed: int = 0,
        device: str = "",
        profile: str = "standard",
        strict: bool = False,
        seconds: float = 0.0,
    ) -> Report:
        """Return the report of a scan that could not start, for this reason: it has one error.

        Who reads reports and no messages must not take silence for a pass.
        """
        finding = Finding(
            UNREADABLE,
            "scan",
            "critical",
            Outcome.ERROR,
            reason,
            title="The model, and what it is scanned with, can be read.",
        )
        return cls(
            model={"path": model} | NOTHING_KNOWN,
            images={"source": "none", "digest": None, "count": 0, "unreadable": 0},
            findings=(finding,),
            seed=seed,
            device=device,
            versions={
                "python": platform.python_version(),
                "encodercheck": metadata.version("encodercheck"),
            },
            seconds=seconds,
            profile=profile,
            strict=strict,
        )

    @property
    def outcome(self) -> Outcome:
        """FAILED beats ERROR beats PASSED; a scan in which nothing passed is INCONCLUSIVE.

        So is one in which no trigger search could decide. A failure that is waived or minor does
        not count.
        """
        return overall(self._counted, searched=self.searched)

    @property
    def exit_code(self) -> int:
        """0 passed, 1 a check failed, 2 no verdict."""
        return exit_code(self._counted, strict=self.strict, searched=self.searched)

    @property
    def searched(self) -> bool:
        """Whether a trigger search decided, or none was to run.

        A failed one has decided, whether or not its failure counts.
        """
        ended = [finding.outcome for finding in self.findings if finding.searches]
        return not ended or any(outcome is not Outcome.INCONCLUSIVE for outcome in ended)

    @property
    def _counted(self) -> list[Outcome]:
        return [finding.outcome for finding in self.findings if finding.counts]

    def _repr_html_(self) -> str:
        from encodercheck.render import notebook

        return notebook.render(self)

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
            "suspicion": self.suspicion and self.suspicion.to_dict(),
            "rules": self.rules,
            "baseline": self.baseline and self.baseline.to_dict(),
            "findings": [finding.to_dict() for finding in self.findings],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """Return what :meth:`to_dict` was made from, without what is never part of the JSON.

        Raises:
            KeyError, TypeError, ValueError: it was not, or its verdict is not what its findings
                add up to.
        """
        from encodercheck.known.baseline import Difference

        baseline = values.get("baseline")
        if values["schema"] != SCHEMA:
            raise ValueError(f"its schema is {values['schema']!r:.80}, not {SCHEMA!r}")
        report = cls(
            model=_facts(values, "model", MODEL_FACTS),
            images=_facts(values, "images", IMAGE_FACTS),
            findings=tuple(map(Finding.from_dict, values["findings"])),
            seed=_count(values, "seed"),
            device=_text(values, "device"),
            versions={name: str(text) for name, text in _facts(values, "versions", {}).items()},
            seconds=_seconds(values),
            profile=_text(values, "profile"),
            strict=values["strict"] is True,
            memory=Memory(**_facts(values, "memory", MEMORY_FACTS)),
            compared_with=_text(values, "compared_with"),
            rules=_facts(values, "rules", RULE_FACTS) if values.get("rules") else {},
            baseline=None if baseline is None else Difference.from_dict(baseline),
            suspicion=Suspicion.from_dict(known) if (known := values.get("suspicion")) else None,
        )
        told = values["outcome"], values["exit_code"]
        if told != (report.outcome.value, report.exit_code):
            raise ValueError("its outcome is not what its findings add up to")
        return report


def _text(values: Mapping[str, Any], key: str) -> str:
    text = values[key]
    if not isinstance(text, str):
        raise TypeError(f"{key} is no text")
    return text


def _count(values: Mapping[str, Any], key: str) -> int:
    count = values[key]
    if type(count) is not int or not 0 <= count < 2**63:
        raise TypeError(f"{key} is no count")
    return count


def _facts(
    values: Mapping[str, Any], key: str, kinds: Mapping[str, Callable[[Any, str], object]]
) -> dict[str, Any]:
    """Return an object, of which the facts that formats go by are of the right kind."""
    found = values[key]
    if not isinstance(found, dict):
        raise TypeError(f"{key} is no object")
    for name, demand in kinds.items():
        demand(found, name)
    return found


def _notes(values: Mapping[str, Any], key: str) -> None:
    notes = values[key]
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise TypeError(f"{key} is no list of texts")


def _claims(values: Mapping[str, Any], key: str) -> None:
    """Check a part of the model that earlier versions did not report."""
    if key in values:
        (_notes if key == "claims" else _text)(values, key)


def _table(values: Mapping[str, Any], key: str) -> None:
    if not isinstance(values[key], dict):
        raise TypeError(f"{key} is no object")


def _text_or_none(values: Mapping[str, Any], key: str) -> None:
    if values[key] is not None:
        _text(values, key)


def _flag_if_there(values: Mapping[str, Any], key: str) -> None:
    # Reports of earlier versions lack it.
    if values.get(key, False) not in (True, False):
        raise TypeError(f"{key} is neither true nor false")


MODEL_FACTS: dict[str, Callable[[Any, str], object]] = {
    **dict.fromkeys(("path", "sha256", "architecture", "provenance"), _text),
    **dict.fromkeys(("image_size", "embedding_dim", "parameters"), _count),
    "notes": _notes,
    **dict.fromkeys(("claims", "read_also_with"), _claims),
}
IMAGE_FACTS: dict[str, Callable[[Any, str], object]] = {"source": _text, "count": _count}
RULE_FACTS: dict[str, Callable[[Any, str], object]] = {
    "source": _text,
    **dict.fromkeys(("select", "ignore"), _notes),
    **dict.fromkeys(("limits", "severity"), _table),
    "fail_on": _text_or_none,
    "fail_fast": _flag_if_there,
}
MEMORY_FACTS: dict[str, Callable[[Any, str], object]] = {"weights_bytes": _count}


def _seconds(values: Mapping[str, Any]) -> float:
    seconds = float(values["seconds"])
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{seconds} seconds")
    return seconds


def _jsonable(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)


def overall(outcomes: Iterable[Outcome], *, searched: bool = True) -> Outcome:
    """Return the outcome of a scan whose checks ended with ``outcomes``.

    Nothing passes where all searches for triggers were in vain: they are not ``searched`` then.
    """
    seen = set(outcomes)
    for outcome in (Outcome.FAILED, Outcome.ERROR, Outcome.PASSED):
        if outcome in seen and (searched or outcome is not Outcome.PASSED):
            return outcome
    return Outcome.INCONCLUSIVE


def exit_code(outcomes: Sequence[Outcome], *, strict: bool = False, searched: bool = True) -> int:
    """Return 0, 1 or 2: nothing failed and something passed; a check failed; no verdict."""
    verdict = overall(outcomes, searched=searched)
    if verdict is Outcome.FAILED:
        return 1
    if verdict is not Outcome.PASSED or (strict and Outcome.INCONCLUSIVE in outcomes):
        return 2
    return 0
