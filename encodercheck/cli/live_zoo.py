"""Show a scan of many models while it runs: a line for each that is done, a bar for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID

from encodercheck.cli.live import bars
from encodercheck.render import summary
from encodercheck.render.console import printable
from encodercheck.render.words import counted, cut
from encodercheck.report import Report
from encodercheck.zoo.rows import Row

LONGEST_NOTE = 40


class LiveWatcher:
    """Draws what a run does. On a pipe only the lines are written."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def started(self, model: str) -> None:
        """Name the model beside the bar."""
        self._progress.update(self._task, note=cut(model, LONGEST_NOTE))

    def finished(self, row: Row, report: Report) -> None:
        """Move the bar, and say how the model ended."""
        self._progress.advance(self._task)
        self._progress.console.print(summary.line(row))
        for told in summary.details(report):
            self._progress.console.print(told)

    def waiting(self, models: int) -> None:
        """Say what is waited for."""
        self._progress.console.print(
            f"another run on this folder has {counted(models, 'more model')} under way; waiting",
            style="dim",
        )

    def distrusted(self, model: str, report: Path) -> None:
        """Say that what was kept is not believed."""
        told = f"{report}: not as it was written, by its digest in the ledger; scanning {model}"
        self._progress.console.print(f"{printable(told)} again", style="yellow")


@contextmanager
def watching(console: Console, models: int) -> Iterator[LiveWatcher]:
    """Yield a watcher whose bar lives as long as the block."""
    with bars(console) as progress:
        yield LiveWatcher(progress, progress.add_task("models", total=models, note=""))
