"""Run every check on every fixture: scan what is not known yet, and collect the findings.

What is known is read in this process. Each fixture that leaves something to be found is scanned in
a process of its own, so that a crash loses one fixture and a kill loses one check.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from encodercheck.cache import content_hash
from encodercheck.errors import ConfigError
from encodercheck.harness.hermetic import refuse_optimized_python
from encodercheck.harness.runner import collect
from encodercheck.report import Finding, Outcome
from encodercheck.verify import finding_cache, fixture_scan, grounds, workers
from encodercheck.verify.finding_cache import Fate
from encodercheck.verify.fixture_scan import Built, Failed, Found, Job, Refused, Settings, Step
from encodercheck.verify.subjects import Subject, require_poisoned
from encodercheck.verify.verification import Row, Verification

if TYPE_CHECKING:
    from encodercheck.harness.listener import CheckInfo


class Watcher(Protocol):
    """Watches a verification."""

    def began(self, checks: int, fixtures: int) -> None:
        """Note how much there is to do."""

    def moved(self, fixture: str, step: Step) -> None:
        """Note how far a fixture is."""

    def finished(self, row: Row) -> None:
        """Note that nothing is left to find on a fixture."""


class SilentWatcher:
    """Watches without a word."""

    def began(self, checks: int, fixtures: int) -> None:
        """Ignore it."""

    def moved(self, fixture: str, step: Step) -> None:
        """Ignore it."""

    def finished(self, row: Row) -> None:
        """Ignore it."""


SILENT: Watcher = SilentWatcher()


def verify(
    subjects: Sequence[Subject],
    settings: Settings,
    *,
    jobs: int = 1,
    fresh: bool = False,
    watcher: Watcher = SILENT,
) -> Verification:
    """Return what the checks find on ``subjects``, ``jobs`` of them at a time.

    A ``fresh`` verification takes nothing over from earlier ones.

    Raises:
        ConfigError: a check or a setting is unusable, or nothing is to be run.
    """
    started = time.monotonic()
    refuse_optimized_python()
    parts = collect(settings.paths, settings.keyword)
    infos = tuple(info for part in parts for info in part.infos)
    require_poisoned(infos, subjects)
    facts = _facts(settings)
    rests_on = grounds.grounds(parts, facts)
    cases = [_Case(subject) for subject in subjects]
    run = _Run(cases, infos, settings, rests_on, grounds.builders_digest(), watcher)
    watcher.began(len(infos), len(subjects))
    if not fresh:
        run.remember()
    run.scan(jobs, fresh)
    rows = tuple(case.row(infos) for case in cases)
    return Verification(infos, rows, facts, time.monotonic() - started)


@dataclass
class _Case:
    """A fixture, and what is known of it so far. ``at`` is what was last heard to be at work."""

    subject: Subject
    sha256: str = ""
    refused: str = ""
    failure: str = ""
    at: str = fixture_scan.BUILDING
    findings: dict[str, Finding] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)

    def take(self, event: Any) -> None:
        """Note what a worker has sent."""
        if isinstance(event, Step):
            self.at = event.what
        elif isinstance(event, Built):
            self.sha256 = event.sha256
        elif isinstance(event, Refused):
            self.refused = event.message
        elif isinstance(event, Failed):
            self.failure = event.message
        elif isinstance(event, Found):
            self.findings[event.finding.id] = event.finding
            if event.cached:
                self.cached.add(event.finding.id)
        elif isinstance(event, workers.Ended) and not self.failure:
            self.failure = f"the process {event.reason or 'ended'} during {self.at}"

    def row(self, infos: Sequence[CheckInfo]) -> Row:
        """Return the row; where it was not refused, a check without a finding is an error."""
        lost = {
            info.id: Finding(info.id, info.check, info.severity, Outcome.ERROR, self.failure)
            for info in (() if self.refused else infos)
        }
        return Row(
            fixture=self.subject.recipe.name,
            seed=self.subject.seed,
            poisoned=self.subject.poisoned,
            findings={**lost, **self.findings},
            refused=self.refused,
            sha256=self.sha256,
            cached=frozenset(self.cached),
        )


@dataclass
class _Run:
    """A verification under way."""

    cases: list[_Case]
    infos: Sequence[CheckInfo]
    settings: Settings
    grounds: dict[str, str]
    builders: str
    watcher: Watcher

    def __post_init__(self) -> None:
        self.open = list(self.cases)

    def remember(self) -> None:
        """Take over what earlier runs have found."""
        for case in list(self.open):
            fate = finding_cache.read_fate(case.subject.digest, self.builders) or Fate()
            case.refused = fate.refused
            sha256 = fate.sha256
            known = finding_cache.read_findings(self.grounds, sha256) if sha256 else {}
            if case.refused or known.keys() == self.grounds.keys():
                case.sha256 = sha256 or ""
                case.findings, case.cached = known, set(known)
                self._close(case)

    def scan(self, at_once: int, fresh: bool) -> None:
        """Find out the rest."""
        cases = list(self.open)
        at_once = max(1, min(at_once, len(cases)))
        threads = max(1, cores() // at_once)
        jobs = [
            Job(case.subject, self.settings, self.grounds, self.builders, fresh, threads)
            for case in cases
        ]
        with closing(workers.events(fixture_scan.scan_fixture, jobs, at_once=at_once)) as events:
            for number, event in events:
                case = cases[number]
                case.take(event)
                if isinstance(event, Step):
                    self.watcher.moved(case.subject.name, event)
                if isinstance(event, workers.Ended):
                    self._close(case)

    def _close(self, case: _Case) -> None:
        self.open.remove(case)
        self.watcher.finished(case.row(self.infos))


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _facts(settings: Settings) -> dict[str, Any]:
    """Return the settings that a finding depends on, as JSON-ready values.

    Raises:
        ConfigError: one of them is unusable.
    """
    from encodercheck.encoder import pick_device
    from encodercheck.nulls import Nulls
    from encodercheck.profiles import PROFILES
    from encodercheck.scanning import versions

    if settings.profile not in PROFILES:
        raise ConfigError(f"profile {settings.profile!r}: choose one of {', '.join(PROFILES)}")
    if settings.null is not None:
        Nulls.read(settings.null)
    return {
        "profile": settings.profile,
        "scan_seed": settings.seed,
        "device": pick_device(settings.device).type,
        "null": None if settings.null is None else content_hash(settings.null.read_bytes()),
        "versions": versions(),
    }
