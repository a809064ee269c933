"""Show a verification while it runs: a line for each fixture that is done, bars for the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TaskID

from encodercheck.cli.live import bars
from encodercheck.render import verify as render
from encodercheck.verify.fixture_scan import Step
from encodercheck.verify.verification import Row


class LiveWatcher:
    """Draws what a verification does. On a pipe only the lines are written."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._all: TaskID | None = None
        self._tasks: dict[str, tuple[str, TaskID]] = {}

    def began(self, checks: int, fixtures: int) -> None:
        """Say how much there is to do, and draw a bar for all the fixtures."""
        self._progress.console.print(render.began(checks, fixtures))
        self._all = self._progress.add_task("fixtures", total=fixtures, note="")

    def moved(self, fixture: str, step: Step) -> None:
        """Draw a bar for what is done with a fixture, or move it."""
        what, task = self._tasks.get(fixture, ("", None))
        if task is None or what != step.what:
            self._take_away(fixture)
            task = self._progress.add_task(f"{fixture}: {step.what}", total=None, note="")
            self._tasks[fixture] = step.what, task
        total = step.total or None
        self._progress.update(task, completed=step.step, total=total, note=step.note)

    def finished(self, row: Row) -> None:
        """Replace the bar by a line."""
        self._take_away(row.name)
        if self._all is not None:
            self._progress.advance(self._all)
        self._progress.console.print(render.progress_line(row))

    def _take_away(self, fixture: str) -> None:
        if fixture in self._tasks:
            _, task = self._tasks.pop(fixture)
            self._progress.remove_task(task)


@contextmanager
def watching(console: Console) -> Iterator[LiveWatcher]:
    """Yield a watcher whose bars live as long as the block."""
    with bars(console) as progress:
        yield LiveWatcher(progress)
