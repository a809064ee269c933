"""Show a scan while it runs: findings as they come, bars for the check and for the whole scan."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from encodercheck.config.rules import NO_RULES, Rules
from encodercheck.render import console as render
from encodercheck.report import Finding

if TYPE_CHECKING:
    from encodercheck.encoder import Encoder
    from encodercheck.harness.listener import CheckInfo
    from encodercheck.harness.state import ScanState


# Bars, numbers and notes are to fit beside it in 80 columns.
LONGEST_TITLE = 26
# A scan that has done less than this part says nothing of how long the rest takes.
LEAST_DONE = 0.02


def bars(console: Console) -> Progress:
    """Return progress bars: what, step of total, a note such as the best value, the time left."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=14),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeLeft(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class TimeLeft(TimeRemainingColumn):
    """The time left: a task's own estimate where it has one, else by the speed of its bar."""

    def render(self, task: Task) -> Text:
        """Return the estimate as text."""
        left: str | None = task.fields.get("left")
        return super().render(task) if left is None else Text(left, style="progress.remaining")


class Remaining:
    """Tells how much of a scan is done, by what its checks cost, and about how long the rest takes.

    >>> scan = Remaining({"A": 1.0, "B": 3.0}, now=0.0)
    >>> scan.finished("A")
    >>> scan.done, scan.seconds(now=20.0)
    (0.25, 60.0)
    """

    def __init__(self, costs: Mapping[str, float], *, now: float) -> None:
        self._left = dict(costs)
        self._total = sum(costs.values())
        self._began = now
        self._running = ""
        self._part = self._before = self._last = 0.0

    @property
    def done(self) -> float:
        """The part of the scan that is done, in [0, 1]."""
        left = sum(self._left.values())
        if self._running in self._left:
            left -= self._left[self._running] * self._part
        return 1 - left / self._total if self._total else 1.0

    def started(self, check: str) -> None:
        """Note that a check begins."""
        self._running = check
        self._part = self._before = self._last = 0.0

    def moved(self, part: float) -> None:
        """Note how far what a check is doing is, in [0, 1].

        How many things it is going to do is not known: each takes half of what is left of it.
        """
        if part < self._last:
            self._before = self._part
        self._last = part
        self._part = max(self._part, self._before + (1 - self._before) * part / 2)

    def finished(self, check: str) -> None:
        """Note that a check has ended."""
        self._left.pop(check, None)

    def seconds(self, *, now: float) -> float | None:
        """Return about how long the rest takes; None where too little is done to tell."""
        elapsed, done = now - self._began, self.done
        if done < LEAST_DONE:
            return None
        return elapsed * (1 - done) / done


class LiveListener:
    """Hears the harness and draws. On a pipe only the findings are written."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._whole: TaskID | None = None
        self._remaining = Remaining({}, now=time.monotonic())

    def collected(self, checks: Sequence[CheckInfo]) -> None:
        """Draw a bar for the whole scan."""
        costs = {info.id: info.cost for info in checks}
        self._remaining = Remaining(costs, now=time.monotonic())
        if self._whole is None:
            self._whole = self._progress.add_task("the scan", total=100, note="", left="")

    def started(self, info: CheckInfo) -> None:
        """Draw a bar for the check."""
        self._remaining.started(info.id)
        title = textwrap.shorten(f"{info.id} {info.title}", LONGEST_TITLE, placeholder=" …")
        self._task = self._progress.add_task(title, total=None, note="")

    def progress(self, info: CheckInfo, step: int, total: int, note: str) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.update(self._task, completed=step, total=total, note=note)
        self._remaining.moved(min(1.0, step / max(1, total)))
        self._show_whole()

    def finished(self, finding: Finding) -> None:
        """Replace the bar by the finding."""
        self.take_away()
        self._remaining.finished(finding.id)
        self._show_whole()
        self._progress.console.print(render.finding(finding))

    def _show_whole(self) -> None:
        if self._whole is None:
            return
        left = self._remaining.seconds(now=time.monotonic())
        self._progress.update(
            self._whole,
            completed=round(100 * self._remaining.done),
            left="" if left is None else f"about {_duration(left)} left",
        )

    def take_away(self) -> None:
        """Remove the bar."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def _duration(seconds: float) -> str:
    """Return a time as "40 s" or "3 min", as exactly as an estimate deserves."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


class MeasuringListener(LiveListener):
    """Draws the checks' bars and nothing else: what a check concludes is not the point."""

    def collected(self, checks: Sequence[CheckInfo]) -> None:
        """Draw nothing: there are further encoders to measure."""

    def finished(self, finding: Finding) -> None:
        """Take the bar away."""
        self.take_away()


def header(state: ScanState, rules: Rules = NO_RULES) -> Text:
    """Say what is scanned, with what."""
    return render.header(
        state.encoder.describe(),
        state.image_set,
        device=str(state.encoder.device),
        profile=state.profile.name,
        seed=state.seed,
        compared_with=state.compared_with,
        rules=rules.sentence(),
    )


@contextmanager
def listening(console: Console) -> Iterator[LiveListener]:
    """Yield a listener whose bars live as long as the block."""
    with bars(console) as progress:
        yield LiveListener(progress)


@contextmanager
def measuring(console: Console) -> Iterator[LiveListener]:
    """Yield a listener for clean encoders, whose bars live as long as the block."""
    with bars(console) as progress:
        yield MeasuringListener(progress)


def open_encoder(console: Console, model: str | None, **options: Any) -> Encoder:
    """Return what :func:`scanning.open_encoder` does, and show the generation of a fixture.

    Raises:
        EncoderCheckError: the model or an option is unusable; the message says why.
    """
    from encodercheck import scanning

    with Building(console, model or "") as building:
        encoder, _ = scanning.open_encoder(model, building=building, **options)
    return encoder


class Building:
    """Shows the generation of a fixture: a bar on a terminal, a line per stage on a pipe."""

    def __init__(self, console: Console, name: str) -> None:
        self._bars = bars(console)
        self._name = name
        self._task: TaskID | None = None
        self._stage = ""

    def __call__(self, step: int, total: int, note: str = "") -> None:
        """Move the bar; the first call draws it, the last one takes it away."""
        if not self._bars.console.is_terminal:
            stage = note.split(",")[0]
            if stage and stage != self._stage:
                self._stage = stage
                self._bars.console.print(f"generating {self._name}: {stage}")
            return
        if self._task is None:
            self._bars.start()
            self._task = self._bars.add_task(f"generating {self._name}", total=total, note=note)
        self._bars.update(self._task, completed=step, total=total, note=note)

    def __enter__(self) -> Building:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()
