"""What the user has decided: which checks run, their limits and severities, what is waived.

None of it is a check's own. Everything here can turn a failure into an exit code of 0, which is why
a report says all of it, and why what names no check is refused.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from fnmatch import fnmatchcase
from typing import Any

from encodercheck.errors import ConfigError
from encodercheck.known import waivers
from encodercheck.known.waivers import ModelWaiver
from encodercheck.report import Direction, Finding, Measurement, Outcome
from encodercheck.severities import SEVERITIES, as_grave_as
from encodercheck.suggest import did_you_mean

SIDES = tuple(f".{side}" for side in Direction)
PARAMETERS = re.compile(r"\[.*\]")
# The finding for limits that nothing was held against.
UNUSED = "limits"


@dataclass(frozen=True)
class Rules:
    """Decisions about checks, by check id.

    ``select`` and ``ignore`` are ids or patterns of ids: those selected run, all where it is empty,
    without those ignored. ``limits`` replace the limits written in checks, as
    ``{"EC202.gain": 0.9}`` or, of a measurement with two sides, ``{"EC202.gain.at_most": 0.9}``.
    A failed check of a severity below ``fail_on`` does not count. ``waivers`` hold on the day
    ``today``. With ``fail_fast`` the cheapest checks run first, and none after a failure that
    counts. ``source`` says where the rules come from.

    Raises:
        ConfigError: a limit is no number or a severity is unknown.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    severities: Mapping[str, str] = field(default_factory=dict)
    fail_on: str | None = None
    waivers: tuple[ModelWaiver, ...] = ()
    fail_fast: bool = False
    today: date = field(default_factory=date.today)
    source: str = ""

    def __post_init__(self) -> None:
        for key, limit in self.limits.items():
            require_limit(key, limit)
        for severity in (*self.severities.values(), self.fail_on or SEVERITIES[0]):
            if severity not in SEVERITIES:
                raise ConfigError(f"severity {severity!r}: choose one of {', '.join(SEVERITIES)}")

    @property
    def name_checks(self) -> bool:
        """Whether there is anything here that is about some checks."""
        return any((self.select, self.ignore, self.limits, self.severities, self.waivers))

    def require_known(self, ids: Collection[str]) -> None:
        """Demand that everything here is about one of the checks with these ids.

        Raises:
            ConfigError: it is not. What names no check would do nothing, unnoticed.
        """
        known = _with_bases(ids)
        for what, patterns in (("select", self.select), ("ignore", self.ignore)):
            for pattern in patterns:
                if not any(_matches(pattern, id_) for id_ in ids):
                    raise ConfigError(self._no_check(f"{what} {pattern!r}", pattern, known))
        for key in self.limits:
            if not any(key.startswith(f"{id_}.") for id_ in known):
                raise ConfigError(self._no_check(f"limit {key}", key.partition(".")[0], known))
        for id_ in self.severities:
            if id_ not in known:
                raise ConfigError(self._no_check(f"severity of {id_}", id_, known))
        for waiver in self.waivers:
            if waiver.check not in ids:
                raise ConfigError(self._no_check(f"waiver of {waiver.check}", waiver.check, ids))

    def runs(self, id_: str) -> bool:
        """Tell whether the check with this id is to run."""
        chosen = not self.select or any(_matches(pattern, id_) for pattern in self.select)
        return chosen and not any(_matches(pattern, id_) for pattern in self.ignore)

    def severity(self, id_: str, written: str) -> str:
        """Return the severity of a check: the one set here, else the one ``written`` in it."""
        return self.severities.get(id_, self.severities.get(base(id_), written))

    def judge(self, finding: Finding, *, sha256: str) -> Finding:
        """Return what a check found on the model with these weights, as far as it counts here."""
        finding = waivers.apply(self.waivers, finding, sha256=sha256, today=self.today)
        failed = finding.outcome is Outcome.FAILED
        minor = failed and not as_grave_as(finding.severity, self.fail_on)
        return replace(finding, minor=minor)

    def unused_limits(self, findings: Sequence[Finding]) -> list[Finding]:
        """Return an error for every limit of a passed check that its values were not held against.

        Which names a check measures is not known before it has run. A check that has not passed
        is none that a forgotten limit could have let through.
        """
        errors = []
        for key in self.limits:
            about = [finding for finding in findings if _about(key, finding.id)]
            measured = [(finding, m) for finding in about for m in finding.measurements]
            used = any(_limits(key, finding.id, m) for finding, m in measured)
            if not used and any(finding.outcome is Outcome.PASSED for finding in about):
                errors.append(self._unused(key, about))
        return errors

    def describe(self) -> dict[str, Any]:
        """Return the rules as JSON-ready values; what is waived is said by the findings."""
        limits = {
            key: limit if math.isfinite(limit) else str(limit) for key, limit in self.limits.items()
        }
        return {
            "source": self.source,
            "select": list(self.select),
            "ignore": list(self.ignore),
            "limits": limits,
            "severity": dict(self.severities),
            "fail_on": self.fail_on,
            "fail_fast": self.fail_fast,
        }

    def sentence(self) -> str:
        """Say what is out of the ordinary, in a line; empty where nothing is."""
        return sentence(self.describe())

    def _unused(self, key: str, about: Sequence[Finding]) -> Finding:
        names = [
            f"{base(finding.id)}.{m.name}"
            for finding in about
            for m in finding.measurements
            if m.limit is not None
        ]
        message = (
            f"{self._at}limit {key}: the check holds no such value against a limit; "
            f"{did_you_mean(key, names)}"
        )
        return Finding(UNUSED, UNUSED, SEVERITIES[-1], Outcome.ERROR, message)

    def _no_check(self, what: str, id_: str, known: Iterable[str]) -> str:
        return f"{self._at}{what}: there is no such check; {did_you_mean(id_, known)}"

    @property
    def _at(self) -> str:
        return f"{self.source}: " if self.source else ""


NO_RULES = Rules()


def base(id_: str) -> str:
    """Return a check's id without parameters."""
    return id_.partition("[")[0]


def sentence(described: Mapping[str, Any]) -> str:
    """Say in a line what rules as :meth:`Rules.describe` has them change; empty: nothing."""
    if not described:
        return ""
    limits = ", ".join(f"{key} {limit}" for key, limit in described["limits"].items())
    grades = ", ".join(f"{id_} {grade}" for id_, grade in described["severity"].items())
    parts = [
        described["source"],
        described["select"] and f"only {', '.join(described['select'])}",
        described["ignore"] and f"without {', '.join(described['ignore'])}",
        limits and f"limits {limits}",
        grades and f"severities {grades}",
        described["fail_on"] and f"failures below {described['fail_on']} do not count",
        # Reports of earlier versions lack it.
        described.get("fail_fast") and "--fail-fast",
    ]
    return " · ".join(part for part in parts if part)


def require_limit(key: str, limit: object) -> None:
    """Demand a key as "EC202.gain" and a number.

    Raises:
        ConfigError: the key names no measurement, or NaN is given, within which no value is.
    """
    check, _, name = key.partition(".")
    if not check or not name or any(f".{name}" == side for side in SIDES):
        raise ConfigError(f"limit {key!r}: name a check and what it measures, as EC202.gain")
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise ConfigError(f"limit {key}: expected a number, not {limit!r:.40}")
    if isinstance(limit, int) and abs(limit) > sys.float_info.max:
        raise ConfigError(f"limit {key}: too large a number; inf is no limit at all")
    if math.isnan(limit):
        raise ConfigError(f"limit {key}: nothing is within NaN; give a number")


def overlay(below: Mapping[str, float], above: Mapping[str, float]) -> dict[str, float]:
    """Return the limits of both; where they are about the same value, those ``above``.

    ``EC202.gain`` above replaces ``EC202.gain.at_most`` below, although a check would prefer it.
    """
    kept = {key: limit for key, limit in below.items() if not _wider(key) & above.keys()}
    return {**kept, **above}


def _wider(key: str) -> set[str]:
    """Return the keys that are about what ``key`` is about, and perhaps more."""
    bare = PARAMETERS.sub("", key)
    side = next((side for side in SIDES if key.endswith(side)), "")
    return {key, bare, key.removesuffix(side), bare.removesuffix(side)}


def _about(key: str, id_: str) -> bool:
    return any(key.startswith(f"{name}.") for name in (id_, base(id_)))


def _limits(key: str, id_: str, measurement: Measurement) -> bool:
    """Tell whether a measurement of a check was held against the limit ``key``."""
    if measurement.limit is None or measurement.direction is None:
        return False
    names = [f"{name}.{measurement.name}" for name in (id_, base(id_))]
    return key in names or key in [f"{name}.{measurement.direction}" for name in names]


def _matches(pattern: str, id_: str) -> bool:
    # An id with parameters is no pattern of itself: brackets mean something else there.
    names = (id_, base(id_))
    return pattern in names or any(fnmatchcase(name, pattern) for name in names)


def _with_bases(ids: Collection[str]) -> list[str]:
    return list(dict.fromkeys([*ids, *map(base, ids)]))
