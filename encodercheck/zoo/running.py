"""Scan many models: what is known is taken over, the rest is measured, and all of it is judged.

Who measures is an executor: this process, processes beside it, or a cluster. This process alone
writes, and keeps a line of each model, no more: its memory does not grow with what is found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from encodercheck.cache import atomic_write_bytes, make_folder
from encodercheck.report import Report
from encodercheck.zoo.measuring import Job, Known, Measured, Work, lost, measure, moved
from encodercheck.zoo.queueing import PAUSE, Queue
from encodercheck.zoo.rows import Row, row_of, worst

if TYPE_CHECKING:
    from encodercheck.zoo.claims import Claims
    from encodercheck.zoo.judging import Judge
    from encodercheck.zoo.keeping import Keeper

# A machine that goes away is no fault of the model's, as long as it is not always this model.
MOST_LOST = 3
NO_VERDICT = 2


@dataclass(frozen=True)
class Began:
    """A model is being scanned."""


@dataclass(frozen=True)
class Died:
    """The worker has ended under the model, for this reason.

    ``starved`` where it may have been for lack of memory, ``gone`` where its machine has.
    """

    reason: str
    starved: bool = False
    gone: bool = False


Event = Began | Died | Known | Measured
Events = Generator[tuple[Job, Event], None, None]
Executor = Callable[[Work, Queue], Events]
"""Measures what is in the queue until nothing is in it or under way.

Jobs may be put back while it runs, and a queue may have none to give for a while.
"""


class Watcher(Protocol):
    """Watches a run."""

    def started(self, model: str) -> None:
        """Note that a model is being scanned."""

    def finished(self, row: Row, report: Report) -> None:
        """Note how it ended."""

    def waiting(self, models: int) -> None:
        """Note that all that is left is being scanned by other runs."""

    def distrusted(self, model: str, report: Path) -> None:
        """Note that a kept report is not as it was written, and that its model is scanned again."""


class SilentWatcher:
    """Watches without a word."""

    def started(self, model: str) -> None:
        """Ignore it."""

    def finished(self, row: Row, report: Report) -> None:
        """Ignore it."""

    def waiting(self, models: int) -> None:
        """Ignore it."""

    def distrusted(self, model: str, report: Path) -> None:
        """Ignore it."""


SILENT: Watcher = SilentWatcher()


@dataclass
class Run:
    """A run over ``models``.

    Results are kept by ``keeper`` where there is one; else the files that checks leave are put into
    ``artifacts``, into the folder of each model, or nowhere without any. Reports are held in memory
    if ``holding``. With ``claims`` other runs on the keeper's folder share the models: each is
    scanned by one of them, and the others take over what it finds.
    """

    models: Sequence[str]
    work: Work
    judge: Judge
    watcher: Watcher = SILENT
    keeper: Keeper | None = None
    claims: Claims | None = None
    artifacts: Sequence[Path] = ()
    holding: bool = False

    def __post_init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self._reports: dict[int, Report] = {}

    @property
    def reports(self) -> list[Report]:
        """The reports in the order of the models, where they are held."""
        return [self._reports[number] for number in sorted(self._reports)]

    @property
    def exit_code(self) -> int:
        """That of the whole: a failure beats no verdict, and that beats a pass."""
        codes = [row.exit_code for row in self.rows.values()]
        # A model that nothing was heard of has not passed.
        return worst([*codes, NO_VERDICT] if len(codes) < len(self.models) else codes)

    def reports_so_far(self, reason: str) -> list[Report]:
        """Return the reports that are held, and for all other models one that gives the reason."""
        if not self.holding:
            return []
        return [
            self._reports.get(number) or Report.unreadable(model, f"{model}: {reason}")
            for number, model in enumerate(self.models)
        ]

    def go(self, executor: Executor) -> None:
        """Scan every model that nothing is known of."""
        jobs = (Job(number, model) for number, model in enumerate(self.models))
        queue = Queue(jobs, self._claim, self.watcher.waiting)
        try:
            with closing(executor(self.work, queue)) as events:
                for job, event in events:
                    again = self._take(job, event)
                    if again is not None:
                        queue.put(again)
        finally:
            if self.claims is not None:
                self.claims.close()

    def _claim(self, job: Job) -> Job | None:
        """Return the job with what others have found on its model; None while they look."""
        if self.claims is None or self.keeper is None:
            return job
        if not self.claims.take(job.model):
            return None
        self.keeper.refresh()
        return replace(job, known=self.keeper.since(job.model))

    def _take(self, job: Job, event: Event) -> Job | None:
        """Settle a model; return what is to be done for it yet."""
        if isinstance(event, Began):
            self.watcher.started(job.model)
            return None
        if isinstance(event, Died):
            if event.gone and job.lost < MOST_LOST:
                return replace(job, lost=job.lost + 1)
            if event.starved and not job.smaller:
                return replace(job, smaller=True)
            event = lost(self.work, job, event.reason)
        if isinstance(event, Measured):
            if event.ran_out_of_memory and not job.smaller:
                return replace(job, smaller=True)
            self._settle(job, event)
            return None
        # Somebody may have removed or damaged it since.
        return None if self._take_over(job, event.key) else replace(job, fresh=True)

    def _settle(self, job: Job, found: Measured) -> None:
        report, files = found.report, found.files
        if self.keeper is None and not self.artifacts:
            report, files = without_witnesses(report), {}
        named = replace(report, model={**report.model, "path": job.model})
        judged = self.judge(named)
        place = None
        if self.keeper is not None:
            entry = self.keeper.add(job.model, found.key, named, judged, files)
            place = self.keeper.place(entry)
        elif files:
            place = self.artifacts[job.number]
            for file, data in files.items():
                make_folder((place / file).parent)
                atomic_write_bytes(place / file, data)
        self._close(job, judged, place)

    def _take_over(self, job: Job, key: str) -> bool:
        assert self.keeper is not None  # or nothing were known
        found = self.keeper.find(key, job.model)
        if found is None:
            if (report := self.keeper.altered(key, job.model)) is not None:
                self.watcher.distrusted(job.model, report)
            return False
        entry, measured = found
        named = replace(measured, model={**measured.model, "path": job.model})
        judged = self.judge(named)
        entry = self.keeper.adopt(job.model, entry, named, judged)
        self._close(job, judged, self.keeper.place(entry), cached=True)
        return True

    def _close(self, job: Job, judged: Report, place: Path | None, *, cached: bool = False) -> None:
        report = judged if place is None else moved(judged, lambda named: str(place / named))
        row = self.rows[job.number] = row_of(job.number, job.model, report, cached=cached)
        if self.holding:
            self._reports[job.number] = report
        if self.claims is not None:
            self.claims.release(job.model)
        self.watcher.finished(row, report)


def without_witnesses(report: Report) -> Report:
    """Return the report of a scan whose witnesses are kept nowhere."""
    return replace(report, findings=tuple(replace(f, witness=None) for f in report.findings))


def here(work: Work, queue: Queue) -> Events:
    """Scan one model after the other in this process."""
    while queue:
        job = queue.take()
        if job is None:
            time.sleep(PAUSE)
            continue
        yield job, Began()
        yield job, measure(work, job)
