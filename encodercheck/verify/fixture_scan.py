"""The worker of a verification: build one fixture, and run the suite on it.

It runs in a process of its own, see ``workers.py``, and sends what happens as it happens. Findings
are kept one by one, so that nothing which is known is lost with the process.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from encodercheck.errors import EncoderCheckError, FixtureError
from encodercheck.harness.listener import CheckInfo, SilentListener
from encodercheck.harness.runner import run_suite, suite
from encodercheck.report import Finding
from encodercheck.verify import finding_cache
from encodercheck.verify.finding_cache import Fate

if TYPE_CHECKING:
    from encodercheck.verify.subjects import Subject
    from encodercheck.verify.workers import Send

BUILDING = "building"
# Fast checks would send thousands of steps a second.
SECONDS_BETWEEN_STEPS = 0.1


@dataclass(frozen=True)
class Settings:
    """How fixtures are scanned: as by ``encodercheck scan``, with these options."""

    checks: tuple[Path, ...] = ()
    keyword: str | None = None
    profile: str = "standard"
    seed: int = 0
    device: str = "auto"
    null: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """Where checks are collected from: the suite, and further ones."""
        return suite(self.checks)


@dataclass(frozen=True)
class Job:
    """A fixture to scan: ``grounds`` are the hashes of what each check rests on, by its id.

    ``builders`` is the hash of the code that builds fixtures. A ``fresh`` job takes no finding over
    from earlier runs.
    """

    subject: Subject
    settings: Settings
    grounds: Mapping[str, str]
    builders: str
    fresh: bool = False
    threads: int = 1


@dataclass(frozen=True)
class Step:
    """How far the building, or the check of this id, is."""

    what: str
    step: int = 0
    total: int = 0
    note: str = ""


@dataclass(frozen=True)
class Built:
    """The fixture is there: the hash of its model file."""

    sha256: str


@dataclass(frozen=True)
class Refused:
    """The fixture failed its certificate."""

    message: str


@dataclass(frozen=True)
class Found:
    """A check has ended, now or in an earlier run."""

    finding: Finding
    cached: bool = False


@dataclass(frozen=True)
class Failed:
    """The scan could not go on."""

    message: str


def scan_fixture(job: Job, send: Send) -> None:
    """Build the fixture of ``job`` and find out what is not known yet."""
    import torch

    torch.set_num_threads(job.threads)
    steps = _Steps(send)
    try:
        fate = _build(job, steps)
        if fate.path is None:
            send(Refused(fate.refused))
            return
        _scan(job, fate, steps)
    except EncoderCheckError as error:
        send(Failed(str(error)))


def _build(job: Job, steps: _Steps) -> Fate:
    from encodercheck import fixtures

    subject = job.subject
    try:
        built = fixtures.build(subject.recipe, seed=subject.seed, progress=steps.building)
        fate = Fate(path=built.path)
    except FixtureError as error:
        fate = Fate(refused=str(error))
    finding_cache.keep_fate(subject.digest, job.builders, fate)
    return fate


def _scan(job: Job, fate: Fate, steps: _Steps) -> None:
    """Run the checks that were not run yet."""
    from encodercheck import scanning

    sha256, settings = fate.sha256 or "", job.settings
    steps.send(Built(sha256))
    known = {} if job.fresh else finding_cache.read_findings(job.grounds, sha256)
    for finding in known.values():
        steps.send(Found(finding, cached=True))
    missing = job.grounds.keys() - known.keys()
    if not missing:
        return
    state = scanning.prepare(
        fate.path,
        profile=settings.profile,
        seed=settings.seed,
        device=settings.device,
        null=settings.null,
    )
    listener = _Keeping(job.grounds, sha256, steps)
    run_suite(
        state, paths=settings.paths, keyword=settings.keyword, only=missing, listener=listener
    )


class _Steps:
    """Sends how far things are, now and then."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self._due = 0.0

    def building(self, step: int, total: int, note: str = "") -> None:
        """Send how far the building is."""
        self.take(Step(BUILDING, step, total, note))

    def take(self, step: Step) -> None:
        """Send a step, unless one has just been sent."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + SECONDS_BETWEEN_STEPS
            self.send(step)


class _Keeping(SilentListener):
    """Keeps and sends every finding as it comes."""

    def __init__(self, grounds: Mapping[str, str], sha256: str, steps: _Steps) -> None:
        self._grounds, self._sha256, self._steps = grounds, sha256, steps

    def started(self, info: CheckInfo) -> None:
        """Send which check is at work: it may be the last that is heard of it."""
        self._steps.send(Step(info.id))

    def progress(self, info: CheckInfo, step: int, total: int, note: str) -> None:
        """Send how far it is."""
        self._steps.take(Step(info.id, step, total, note))

    def finished(self, finding: Finding) -> None:
        """Keep the finding, then send it."""
        if finding.id in self._grounds:
            finding_cache.keep_finding(self._grounds[finding.id], self._sha256, finding)
        self._steps.send(Found(finding))
