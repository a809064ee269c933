"""Show a scan while it runs: each finding as it comes, and a bar for the check under way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
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


def bars(console: Console) -> Progress:
    """Return progress bars: what, step of total, a note such as the best value, the time left."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class LiveListener:
    """Hears the harness and draws. On a pipe only the findings are written."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def collected(self, checks: Sequence[CheckInfo]) -> None:
        """Nothing is drawn before the first check starts."""

    def started(self, info: CheckInfo) -> None:
        """Draw a bar for the check."""
        self._task = self._progress.add_task(f"{info.id} {info.title}", total=None, note="")

    def progress(self, info: CheckInfo, step: int, total: int, note: str) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.update(self._task, completed=step, total=total, note=note)

    def finished(self, finding: Finding) -> None:
        """Replace the bar by the finding."""
        self.take_away()
        self._progress.console.print(render.finding(finding))

    def take_away(self) -> None:
        """Remove the bar."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


class MeasuringListener(LiveListener):
    """Draws the bars and nothing else: what a check concludes is not the point."""

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
