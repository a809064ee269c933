"""What changed between two runs over many models, and whether anything got worse."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from encodercheck.errors import ConfigError
from encodercheck.known.baseline import MOVED, Change, Difference, Kind, between, read_reports
from encodercheck.progress import Progress, silent
from encodercheck.report import UNREADABLE as NOT_BEGUN
from encodercheck.report import Outcome, Report
from encodercheck.zoo import saved

SCHEMA = "encodercheck.diff/1"
VERDICTS = {0: "passed", 1: "failed", 2: "no verdict"}
UNREADABLE = "unreadable"
DECIDED = (Outcome.PASSED.value, Outcome.FAILED.value)
MEASURED = "measurements_moved"
WEIGHTS = "other_weights"


class Fate(str, Enum):
    """What has happened to a model, the gravest first; of several the gravest is told."""

    NEWLY_FAILED = "newly_failed"
    LOST_VERDICT = "lost_verdict"
    GONE = "gone"
    NEW = "new"
    FIXED = "fixed"
    VERDICT = "other_verdict"
    CHECKS = "checks_changed"
    MEASUREMENTS = MEASURED
    WEIGHTS = WEIGHTS

    __str__ = str.__str__


@dataclass(frozen=True)
class Subject:
    """A model of a run, whose report is read when it is asked for."""

    model: str
    sha256: str
    read: Callable[[], Report]


@dataclass(frozen=True)
class Run:
    """The models of a run, and the file or folder that they come from."""

    path: str
    subjects: tuple[Subject, ...]

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open a file that ``scan --json`` wrote, or the output folder of a scan of many models.

        Raises:
            ConfigError: there is no such thing, it is damaged, or there is no result in it.
        """
        if path.is_dir():
            results = saved.of(path)
            found = [Subject(one.model, one.entry.sha256, one.report) for one in results]
        else:
            found = [_held(report) for report in read_reports(path)]
        return cls(str(path), tuple(found))


@dataclass(frozen=True)
class ModelDiff:
    """What has happened to one model; ``before`` and ``after`` are verdicts, None where it is not.

    ``was`` is the name that the same weights had before, where that was another one. ``worse``
    names what got worse: ``"verdict"`` and the ids of checks.
    """

    model: str
    before: str | None
    after: str | None
    difference: Difference | None = None
    was: str | None = None
    worse: tuple[str, ...] = ()
    other_weights: bool = False

    @property
    def fate(self) -> Fate | None:
        """The gravest of what has happened; None where nothing has."""
        if self.before != self.after:
            return _fate_of_verdict(self.before, self.after)
        changes = self.difference.changes if self.difference else ()
        if any(change.kind is not Kind.MEASUREMENTS for change in changes):
            return Fate.CHECKS
        if changes:
            return Fate.MEASUREMENTS
        return Fate.WEIGHTS if self.other_weights else None

    @property
    def changes(self) -> tuple[Change, ...]:
        """What has happened to its checks."""
        return self.difference.changes if self.difference else ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        found = self.difference
        return {
            "model": self.model,
            "was": self.was,
            "fate": self.fate and self.fate.value,
            "before": self.before,
            "after": self.after,
            "worse": list(self.worse),
            "other_weights": self.other_weights,
            "settings": list(found.settings) if found else [],
            "changes": [change.to_dict() for change in self.changes],
        }


@dataclass(frozen=True)
class RunDiff:
    """What changed between two runs: the ``models`` to which something happened, gravest first.

    ``compared`` models are in both. ``settings`` says in words what was set otherwise, and for how
    many models. ``unreadable`` are the faults of reports that could not be read.
    """

    before: str
    after: str
    compared: int
    models: tuple[ModelDiff, ...]
    settings: tuple[tuple[str, int], ...]
    unreadable: tuple[str, ...]
    tolerance: float

    @property
    def exit_code(self) -> int:
        """0 nothing got worse, 1 something did, 2 not everything could be read."""
        if any(model.worse for model in self.models):
            return 1
        return 2 if self.unreadable else 0

    @property
    def fates(self) -> Counter[Fate]:
        """To how many models what has happened."""
        return Counter(model.fate for model in self.models if model.fate)

    @property
    def checks(self) -> Counter[str]:
        """How many checks of all models have changed how, as ``Kind`` has it, and got worse."""
        told: Counter[str] = Counter()
        for model in self.models:
            told.update(change.kind.value for change in model.changes)
            told["worse"] += len(set(model.worse) - {"verdict"})
        return told

    @property
    def moved(self) -> int:
        """How many measurements have moved."""
        changes = (change for model in self.models for change in model.changes)
        return sum(len(change.measurements) for change in changes)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values (schema ``encodercheck.diff/1``)."""
        return {
            "schema": SCHEMA,
            "before": self.before,
            "after": self.after,
            "tolerance": self.tolerance,
            "exit_code": self.exit_code,
            "counts": {
                "compared": self.compared,
                "worse": sum(bool(model.worse) for model in self.models),
                "models": {fate.value: self.fates[fate] for fate in Fate},
                "checks": {kind.value: self.checks[kind.value] for kind in Kind}
                | {"worse": self.checks["worse"]},
                "measurements": self.moved,
            },
            "settings": [{"what": what, "models": count} for what, count in self.settings],
            "unreadable": list(self.unreadable),
            "models": [model.to_dict() for model in self.models],
        }


def diff(
    before: Run,
    after: Run,
    *,
    tolerance: float = MOVED,
    allow_gone: bool = False,
    progress: Progress = silent,
) -> RunDiff:
    """Compare two runs, model by model; memory grows with what changed, not with the models.

    What is gone has lost its verdict, and so got worse, unless ``allow_gone``.
    """
    compared, kept, settings, unreadable = 0, [], Counter[str](), list[str]()
    pairs = list(_pairs(before.subjects, after.subjects))
    for step, (old, new) in enumerate(pairs):
        progress(step, len(pairs))
        found = _compare(old, new, before.path, tolerance, allow_gone, unreadable)
        if old and new:
            compared += 1
            settings.update(found.difference.settings if found.difference else ())
        if found.fate or found.worse:
            kept.append(found)
    order = list(Fate)
    kept.sort(key=lambda one: (not one.worse, order.index(one.fate) if one.fate else 99, one.model))
    return RunDiff(
        before.path,
        after.path,
        compared,
        tuple(kept),
        tuple(settings.most_common()),
        tuple(unreadable),
        tolerance,
    )


def as_json(found: RunDiff) -> str:
    """Return a difference as a JSON document."""
    return json.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n"


def _held(report: Report) -> Subject:
    return Subject(report.model["path"], report.model["sha256"], lambda: report)


Pair = tuple[Subject | None, Subject | None]
Key = Callable[[Subject], Hashable]


def _pairs(before: Sequence[Subject], after: Sequence[Subject]) -> Iterator[Pair]:
    """Match models by name, else by weights, each once; then those that only one run has.

    The name comes first: what others ask for by a name must not hide behind a new name of the old.
    """
    keys: tuple[Key, ...] = (
        # Of several under one name first those that are the same.
        lambda subject: (subject.model, subject.sha256),
        lambda subject: subject.model,
        # The weights of what could not be read are not known.
        lambda subject: subject.sha256 or None,
    )
    for key in keys:
        pairs, before, after = _match(before, after, key)
        yield from pairs
    yield from ((None, subject) for subject in after)
    yield from ((subject, None) for subject in before)


def _match(
    before: Sequence[Subject], after: Sequence[Subject], key: Key
) -> tuple[list[Pair], list[Subject], list[Subject]]:
    """Return the pairs with the same key, and what is left of both; None matches nothing."""
    waiting: defaultdict[Hashable, list[Subject]] = defaultdict(list)
    for old in reversed(before):
        waiting[key(old)].append(old)
    unmatched = waiting.pop(None, [])[::-1]
    pairs: list[Pair] = []
    left: list[Subject] = []
    for new in after:
        if waiting.get(key(new)):
            pairs.append((waiting[key(new)].pop(), new))
        else:
            left.append(new)
    for olds in waiting.values():
        unmatched += reversed(olds)
    return pairs, unmatched, left


def _compare(
    old: Subject | None,
    new: Subject | None,
    path: str,
    tolerance: float,
    allow_gone: bool,
    unreadable: list[str],
) -> ModelDiff:
    name = new.model if new else old.model if old else ""
    reports = _read(old, unreadable), _read(new, unreadable)
    before, after = _verdict(old, reports[0]), _verdict(new, reports[1])
    difference = _between(*reports, path, tolerance)
    worse = ["verdict"] if _is_worse(before, after, allow_gone) else []
    for change in difference.changes if difference else ():
        if _is_worse(change.before, change.after, allow_gone):
            worse.append(change.id)
    # The weights of a model that could not be read are not known.
    weights = {subject.sha256 for subject in (old, new) if subject} - {""}
    return ModelDiff(
        name,
        before,
        after,
        difference,
        was=old.model if old and new and old.model != new.model else None,
        worse=tuple(worse),
        other_weights=len(weights) > 1,
    )


def _between(
    old: Report | None, new: Report | None, path: str, tolerance: float
) -> Difference | None:
    if old is None or new is None:
        return None
    found = between(old, new, path, tolerance=tolerance)
    # A scan that could not begin had no settings, which are no other ones.
    begun = not (_has_not_begun(old) or _has_not_begun(new))
    return found if begun else replace(found, settings=())


def _has_not_begun(report: Report) -> bool:
    return any(found.id == NOT_BEGUN for found in report.findings)


def _read(subject: Subject | None, unreadable: list[str]) -> Report | None:
    if subject is None:
        return None
    try:
        return subject.read()
    except ConfigError as error:
        unreadable.append(str(error))
        return None


def _verdict(subject: Subject | None, report: Report | None) -> str | None:
    if subject is None:
        return None
    return VERDICTS[report.exit_code] if report else UNREADABLE


def _is_worse(before: str | None, after: str | None, allow_gone: bool) -> bool:
    """Tell whether something failed that had not, or is without the verdict that it had."""
    if after == Outcome.FAILED.value:
        return before != Outcome.FAILED.value
    if after is None and allow_gone:
        return False
    return _is_decided(before) and not _is_decided(after)


def _is_decided(state: str | None) -> bool:
    # A failure that is waived, as "failed (waived)", has been decided too.
    return state is not None and state.startswith(DECIDED)


def _fate_of_verdict(before: str | None, after: str | None) -> Fate:
    if before is None:
        return Fate.NEW
    if after is None:
        return Fate.GONE
    if after == Outcome.FAILED.value:
        return Fate.NEWLY_FAILED
    if not _is_decided(after):
        return Fate.LOST_VERDICT if _is_decided(before) else Fate.VERDICT
    return Fate.FIXED if before == Outcome.FAILED.value else Fate.VERDICT
