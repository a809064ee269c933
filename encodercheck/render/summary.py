"""Many models on the terminal: a line as each ends, and a table of them all in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from encodercheck.render import console
from encodercheck.render.console import STYLES
from encodercheck.render.words import counted, cut, printable
from encodercheck.report import Outcome, Report

if TYPE_CHECKING:
    from encodercheck.zoo.rows import Row

# More rows are not read; then only those that are no pass are shown, and of them so many.
MOST_ROWS = 100
LONGEST_REASON = 160
GAP = 2


def line(row: Row) -> Text:
    """Say how a model ended."""
    text = Text(f"{row.outcome.value:<12} ", style=_style(row))
    text.append(printable(row.model), style="bold")
    known = "known" if row.cached else f"{row.seconds:.1f} s"
    text.append(f"  {known}", style="dim")
    # What has failed follows in full.
    told = ", ".join(row.failed) if row.exit_code == 1 else row.reason
    if told:
        text.append(f"  {printable(told)}", style=_style(row))
    return text


def details(report: Report) -> Iterator[Text]:
    """Yield what is to be said of checks that failed, as the scan of one model says it."""
    for finding in report.findings:
        if finding.outcome is Outcome.FAILED and finding.counts:
            yield console.finding(finding)


def table(rows: Sequence[Row]) -> Table:
    """Return a row for each model; of very many, only for those that are no pass."""
    shown = [row for row in rows if len(rows) <= MOST_ROWS or row.exit_code]
    made = Table(box=None, show_header=True, header_style="dim", padding=(0, GAP, 0, 0))
    for title in ("verdict", "model", "seconds", "why"):
        made.add_column(title, justify="right" if title == "seconds" else "left", overflow="fold")
    for row in shown[:MOST_ROWS]:
        why = f"{', '.join(row.failed)}: {row.reason}" if row.exit_code == 1 else row.reason
        made.add_row(
            Text(row.verdict, style=_style(row)),
            printable(row.model),
            "known" if row.cached else f"{row.seconds:.1f}",
            cut(why, LONGEST_REASON),
        )
    return made


def left_out(rows: Sequence[Row]) -> str:
    """Say which rows the table does not have; empty where it has them all."""
    if len(rows) <= MOST_ROWS:
        return ""
    bad = sum(bool(row.exit_code) for row in rows)
    beyond = f", and {bad - MOST_ROWS} more that did not pass" if bad > MOST_ROWS else ""
    return f"not shown: {counted(len(rows) - bad, 'model')} that passed{beyond}"


def totals(rows: Sequence[Row], exit_code: int, seconds: float | None = None) -> Text:
    """Say in a line how they all ended."""
    counts = Counter(row.outcome for row in rows)
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
    word, outcome = {
        0: ("PASSED", Outcome.PASSED),
        1: ("FAILED", Outcome.FAILED),
        2: ("NO VERDICT", Outcome.ERROR),
    }[exit_code]
    text = Text(word, style=f"{STYLES[outcome]} reverse")
    text.append(f"  {counted(len(rows), 'model')}: {told}", style=STYLES[outcome])
    known = sum(row.cached for row in rows)
    if seconds is not None:
        text.append(f"  in {seconds:.1f} s", style="dim")
    if known:
        text.append(f", {known} of them known from before", style="dim")
    return text


def _style(row: Row) -> str:
    if row.outcome is Outcome.PASSED and row.exit_code:
        return STYLES[Outcome.INCONCLUSIVE]
    return STYLES[row.outcome]
