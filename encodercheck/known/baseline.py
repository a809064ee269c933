"""What has changed since an earlier scan: its report is the baseline.

A change is news, not a verdict: what a scan finds counts whether or not the baseline had it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from encodercheck.config.rules import sentence
from encodercheck.report import Finding, Measurement, Outcome, Report
from encodercheck.saved import read_saved

# A report of a hundred models with a hundred checks each is a tenth of it.
MOST_BYTES = 50_000_000
MOST_PARSING = 1_000_000_000
# Below this part of a value it is another machine's arithmetic.
MOVED = 1e-3
WAY_OUT = "name a report that `encodercheck scan --json` wrote"


class Kind(str, Enum):
    """What has happened to a check."""

    NEWLY_FAILED = "newly_failed"
    FIXED = "fixed"
    OUTCOME = "outcome"
    MEASUREMENTS = "measurements"
    NEW = "new"
    GONE = "gone"

    __str__ = str.__str__


@dataclass(frozen=True)
class Moved:
    """A measurement before and after, None where there was none."""

    name: str
    before: Measurement | None
    after: Measurement | None

    def to_dict(self) -> dict[str, Any]:
        """Return both measurements as the report's JSON has them."""
        return {
            "name": self.name,
            "before": self.before and self.before.to_dict(),
            "after": self.after and self.after.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Moved:
        """Return what :meth:`to_dict` was made from.

        Raises:
            KeyError, TypeError, ValueError: it was not.
        """
        pair = (values["before"], values["after"])
        before, after = (None if told is None else Measurement.from_dict(told) for told in pair)
        return cls(str(values["name"]), before, after)


@dataclass(frozen=True)
class Change:
    """What has happened to one check; ``before`` and ``after`` say how it ended, if it was there.

    >>> Change("EC102", Kind.FIXED, "failed", "passed").kind.value
    'fixed'
    """

    id: str
    kind: Kind
    before: str | None = None
    after: str | None = None
    measurements: tuple[Moved, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the change as the report's JSON has it."""
        return {
            "id": self.id,
            "kind": self.kind.value,
            "before": self.before,
            "after": self.after,
            "measurements": [moved.to_dict() for moved in self.measurements],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Change:
        """Return what :meth:`to_dict` was made from.

        Raises:
            KeyError, TypeError, ValueError: it was not.
        """
        before, after = (
            None if told is None else str(told) for told in (values["before"], values["after"])
        )
        moved = tuple(map(Moved.from_dict, values["measurements"]))
        return cls(str(values["id"]), Kind(values["kind"]), before, after, moved)


@dataclass(frozen=True)
class Difference:
    """How a scan differs from its baseline.

    ``known`` is False for a model that the baseline does not have, ``same_weights`` for one that it
    has under this path with other weights. ``settings`` says in words what else was different.
    """

    baseline: str
    known: bool
    same_weights: bool = False
    settings: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the difference as the report's JSON has it."""
        return {
            "path": self.baseline,
            "known": self.known,
            "same_weights": self.same_weights,
            "settings": list(self.settings),
            "changes": [change.to_dict() for change in self.changes],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Difference:
        """Return what :meth:`to_dict` was made from.

        Raises:
            KeyError, TypeError, ValueError: it was not.
        """
        return cls(
            str(values["path"]),
            known=values["known"] is True,
            same_weights=values["same_weights"] is True,
            settings=tuple(map(str, values["settings"])),
            changes=tuple(map(Change.from_dict, values["changes"])),
        )


@dataclass(frozen=True)
class Baseline:
    """The reports of an earlier scan."""

    path: str
    reports: tuple[Report, ...]

    @classmethod
    def read(cls, path: str | Path) -> Baseline:
        """Read what ``encodercheck scan --json`` wrote, of one model or of several.

        Raises:
            ConfigError: the file is missing, damaged, or no report.
        """
        return cls(str(path), read_reports(path))

    def compare(self, report: Report) -> Difference:
        """Say what has changed in ``report`` since."""
        old = self._of(report)
        return (
            Difference(self.path, known=False) if old is None else between(old, report, self.path)
        )

    def _of(self, report: Report) -> Report | None:
        """Return the earlier report of a model: of the same weights, or else of the same path."""

        def likeness(old: Report) -> tuple[bool, bool]:
            return _same_weights(old, report), old.model.get("path") == report.model.get("path")

        best = max(self.reports, key=likeness, default=None)
        return best if best is not None and any(likeness(best)) else None


def read_reports(path: str | Path) -> tuple[Report, ...]:
    """Return the reports in a file that ``encodercheck scan --json`` wrote.

    Raises:
        ConfigError: the file is missing, damaged, or no report.
    """
    return read_saved(
        path,
        _reports,
        what="report",
        way_out=WAY_OUT,
        most=MOST_BYTES,
        parsing=MOST_PARSING,
    )


def between(old: Report, new: Report, path: str, *, tolerance: float = MOVED) -> Difference:
    """Say what has changed from ``old``, which ``path`` holds, to ``new``."""
    return Difference(
        path,
        known=True,
        same_weights=_same_weights(old, new),
        settings=tuple(_settings(old, new)),
        changes=tuple(changes(old.findings, new.findings, tolerance=tolerance)),
    )


def changes(
    before: Sequence[Finding], after: Sequence[Finding], *, tolerance: float = MOVED
) -> Iterator[Change]:
    """Yield what has happened to each check, in the order of the later scan.

    Values and limits have moved that differ by more than ``tolerance``, as a part of the larger.
    """
    old = {finding.id: finding for finding in before}
    new = {finding.id: finding for finding in after}
    for id_, finding in new.items():
        if id_ not in old:
            yield Change(id_, Kind.NEW, after=_state(finding))
            continue
        moved = tuple(_moved(old[id_].measurements, finding.measurements, tolerance))
        states = _state(old[id_]), _state(finding)
        if states[0] != states[1]:
            yield Change(id_, _kind(*states), *states, moved)
        elif moved:
            yield Change(id_, Kind.MEASUREMENTS, *states, moved)
    for id_, finding in old.items():
        if id_ not in new:
            yield Change(id_, Kind.GONE, before=_state(finding))


def _state(finding: Finding) -> str:
    if finding.counts:
        return finding.outcome.value
    return f"{finding.outcome} ({'waived' if finding.waiver else 'not counted'})"


def _kind(before: str, after: str) -> Kind:
    if after == Outcome.FAILED.value:
        return Kind.NEWLY_FAILED
    # What could not decide, or crashed, has fixed nothing.
    was_failed = before.startswith(Outcome.FAILED.value)
    return Kind.FIXED if was_failed and after == Outcome.PASSED.value else Kind.OUTCOME


def _moved(
    before: Iterable[Measurement], after: Iterable[Measurement], tolerance: float
) -> Iterator[Moved]:
    old, new = _numbered(before), _numbered(after)
    for key in dict.fromkeys([*old, *new]):
        pair = old.get(key), new.get(key)
        if pair[0] is None or pair[1] is None or _differ(pair[0], pair[1], tolerance):
            yield Moved(key[0], *pair)


def _numbered(measurements: Iterable[Measurement]) -> dict[tuple[str, object, int], Measurement]:
    """Return measurements by name, side and number: a check may measure one name several times."""
    numbered: dict[tuple[str, object, int], Measurement] = {}
    for measurement in measurements:
        number = 0
        while (key := (measurement.name, measurement.direction, number)) in numbered:
            number += 1
        numbered[key] = measurement
    return numbered


def _differ(before: Measurement, after: Measurement, tolerance: float) -> bool:
    limits = (math.nan if m.limit is None else m.limit for m in (before, after))
    values = before.value, after.value
    return not all(_close(*pair, tolerance=tolerance) for pair in (values, tuple(limits)))


def _close(before: float, after: float, *, tolerance: float) -> bool:
    if math.isnan(before) or math.isnan(after):
        return math.isnan(before) and math.isnan(after)
    return math.isclose(before, after, rel_tol=tolerance, abs_tol=1e-9)


def _same_weights(old: Report, new: Report) -> bool:
    sha256 = new.model.get("sha256")
    return bool(sha256) and sha256 == old.model.get("sha256")


def _settings(old: Report, new: Report) -> Iterator[str]:
    """Say what was set otherwise: then a check may end otherwise for no fault of the model's."""
    facts = (
        ("architecture", old.model.get("architecture"), new.model.get("architecture")),
        ("images", *_images(old, new)),
        ("profile", old.profile, new.profile),
        ("seed", old.seed, new.seed),
        ("device", old.device, new.device),
        ("compared with", old.compared_with, new.compared_with),
        ("rules", sentence(old.rules) or "none", sentence(new.rules) or "none"),
        ("strict", *("yes" if report.strict else "no" for report in (old, new))),
        ("encodercheck", old.versions.get("encodercheck"), new.versions.get("encodercheck")),
        ("torch", old.versions.get("torch"), new.versions.get("torch")),
    )
    for name, before, after in facts:
        if before != after:
            yield f"{name}: {before} -> {after}"


def _images(old: Report, new: Report) -> tuple[str, str]:
    """Return what the scans call their images; the same files have one name."""
    digest = new.images.get("digest")
    same = digest is not None and digest == old.images.get("digest")
    names = [(new if same else report).images.get("source") for report in (old, new)]
    before, after = (
        f"{report.images.get('count')} {name}"
        for report, name in zip((old, new), names, strict=True)
    )
    return before, after


def _reports(content: Any) -> tuple[Report, ...]:
    several = isinstance(content, dict) and isinstance(content.get("reports"), list)
    entries = content["reports"] if several else [content]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("there is no report in it")
    return tuple(Report.from_dict(entry) for entry in entries)
