"""A verification: on the terminal the matrix, a line per check, the faults; and as JSON."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from encodercheck.intervals import share
from encodercheck.render.console import STYLES, measured, number, printable
from encodercheck.report import Finding, Outcome
from encodercheck.verify.judging import deciding, margin
from encodercheck.verify.verification import WRONG, Fault, FaultKind, Row, Verification

MARKS = {
    Outcome.PASSED: "✓",
    Outcome.FAILED: "✗",
    Outcome.INCONCLUSIVE: "?",
    Outcome.ERROR: "!",
}
LEGEND = (
    "✗ failed  ✓ passed  ? inconclusive  ! error  [ ] the check declares that it catches this one; "
    "then the value and how far it is within its limit, negative beyond it"
)
GOOD, BAD, OPEN = "green", "bold red", "yellow"
GAP = 2

Column = tuple[str, list[Text]]


def matrix(found: Verification, width: int | None = None) -> Iterator[Table]:
    """Yield the matrix of fixtures and checks, in tables of no more than ``width`` characters.

    The checks that do not fit into one table follow in the next; None fits them all.
    """
    names = [Text(row.name, style="" if row.poisoned else "dim") for row in found.rows]
    kinds = [Text(_kind(row), style="dim") for row in found.rows]
    columns = [
        [cell(row, check.id, declared=row.declared(check)) for row in found.rows]
        for check in found.checks
    ]
    left = _width("", names) + _width("", kinds) + 2 * GAP
    titled = [(printable(c.id), cells) for c, cells in zip(found.checks, columns, strict=True)]
    room = None if width is None else width - left
    for some in _fitting(titled, room):
        made = _columns("", "", *(title for title, _ in some))
        for line in zip(names, kinds, *(cells for _, cells in some), strict=True):
            made.add_row(*line)
        yield made


def cell(row: Row, check: str, *, declared: bool) -> Text:
    """Return how a check ended on a fixture, as "[✗] 0.995 -0.019"."""
    finding = row.findings.get(check)
    if finding is None:
        return Text(" refused" if row.refused else "", style="dim")
    mark = MARKS[finding.outcome]
    style = _style(finding, poisoned=row.poisoned, declared=declared)
    text = Text(f"[{mark}]" if declared else f" {mark} ", style=style)
    measurement = deciding(finding)
    if measurement is not None:
        text.append(f" {number(measurement.value)}", style="default not bold")
        distance = margin(measurement)
        if distance is not None:
            text.append(f" {distance:+.2g}", style="dim not bold")
    return text


def judgements(found: Verification) -> Table:
    """Return a line for each check: its power, its false alarms and its AUROC."""
    made = _columns("check", "caught", "false alarms", "AUROC", "by", "inconclusive", "errors")
    for check in found.checks:
        judged = found.judgements[check.id]
        area = "-"
        if judged.area is not None:
            value, low, high = judged.area
            area = f"{value:.3f} ({low:.3f} to {high:.3f})"
        made.add_row(
            Text(printable(check.id), style="bold"),
            _share(judged.caught, judged.declared, bad=judged.caught < judged.declared),
            _share(judged.alarms, judged.clean, bad=judged.alarms > 0),
            area,
            judged.ranked_by.replace("_", "-") if judged.area is not None else "-",
            str(judged.inconclusive),
            Text(str(judged.errors), style=STYLES[Outcome.ERROR] if judged.errors else ""),
        )
    return made


def _share(hits: int, n: int, *, bad: bool) -> Text:
    return Text(share(hits, n) if n else "-", style=BAD if bad else "")


def faults(found: Verification) -> Iterator[Text]:
    """Yield a line for each broken claim, each crash, and each fixture that was refused."""
    for fault in found.faults:
        if fault.kind is not FaultKind.ERROR:
            yield Text(_sentence(fault), style=BAD if fault.kind in WRONG else OPEN)
    for checks, fixtures, message in _crashes(found):
        said = f"{', '.join(checks)} ended with an error on {', '.join(fixtures)}: {message}"
        yield Text(printable(said), style=STYLES[Outcome.ERROR])
    for row in found.rows:
        if row.refused:
            yield Text(printable(f"{row.name} is left out: {row.refused}"), style=OPEN)


def _crashes(found: Verification) -> Iterator[tuple[tuple[str, ...], list[str], str]]:
    """Yield checks, fixtures and the message of each error that they share."""
    on: dict[tuple[str, str], list[str]] = {}
    for fault in found.faults:
        if fault.kind is FaultKind.ERROR:
            on.setdefault((fault.fixture, fault.message), []).append(fault.check)
    shared: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for (fixture, message), checks in on.items():
        shared.setdefault((tuple(checks), message), []).append(fixture)
    for (together, message), fixtures in shared.items():
        yield together, fixtures, message


def verdict(found: Verification) -> Text:
    """Say how the verification ended."""
    label = {0: "VERIFIED", 1: "NOT VERIFIED", 2: "NO VERDICT"}[found.exit_code]
    style = STYLES[found.outcome]
    judged = found.judgements.values()
    caught, declared = sum(j.caught for j in judged), sum(j.declared for j in judged)
    alarms, clean = sum(j.alarms for j in judged), sum(j.clean for j in judged)
    text = Text(label, style=f"{style} reverse")
    text.append(
        f"  caught {caught} of {declared} declared, false alarms {alarms} of {clean}; "
        f"{_counted(len(found.checks), 'check')} on {_counted(len(found.rows), 'fixture')}",
        style=style,
    )
    text.append(f"  in {found.seconds:.1f} s", style="dim")
    if not found.decided:
        text.append("\nno check passed or failed on anything", style=OPEN)
    return text


def began(checks: int, fixtures: int) -> Text:
    """Say how much there is to do."""
    return Text(
        f"{_counted(checks, 'check')} on {_counted(fixtures, 'fixture')}; one that is not in the "
        "cache takes a minute or more to build",
        style="dim",
    )


def progress_line(row: Row) -> Text:
    """Say that a fixture is done, in one line."""
    text = Text(f"{row.name:<28} ")
    if row.refused:
        return text.append("refused by its certificate", style=OPEN)
    outcomes = [finding.outcome for finding in row.findings.values()]
    counts = [(outcome, outcomes.count(outcome)) for outcome in Outcome]
    text.append(", ".join(f"{count} {outcome.value}" for outcome, count in counts if count))
    known = len(row.cached)
    if known:
        text.append(f"  {'all' if known == len(outcomes) else known} known", style="dim")
    return text


def json(found: Verification) -> str:
    """Return the verification as JSON (schema ``encodercheck.verify/1``)."""
    return jsonlib.dumps(found.to_dict(), indent=2, allow_nan=False) + "\n"


def _sentence(fault: Fault) -> str:
    if fault.kind is FaultKind.UNTESTED:
        return printable(
            f"{fault.check} says that it catches {fault.fixture}, and all of those were refused: "
            f"{fault.message}"
        )
    value = f": {measured(fault.measurement).plain}" if fault.measurement else ""
    if fault.kind is FaultKind.FALSE_ALARM:
        return f"{printable(fault.check)} fired on the clean {fault.fixture}{value}"
    said = f"{printable(fault.check)} missed {fault.fixture}, {fault.outcome}{value}"
    why = fault.message if fault.outcome is Outcome.INCONCLUSIVE else ""
    return f"{said} ({printable(why)})" if why else said


def _style(finding: Finding, *, poisoned: bool, declared: bool) -> str:
    if finding.outcome is Outcome.ERROR:
        return STYLES[Outcome.ERROR]
    failed = finding.outcome is Outcome.FAILED
    if declared:
        return GOOD if failed else BAD
    if failed and not poisoned:
        return BAD
    return OPEN if finding.outcome is Outcome.INCONCLUSIVE else ""


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _kind(row: Row) -> str:
    return "poisoned" if row.poisoned else "clean"


def _width(title: str, cells: Sequence[Text]) -> int:
    return max((len(title), *(text.cell_len for text in cells)))


def _fitting(columns: Sequence[Column], room: int | None) -> Iterator[list[Column]]:
    """Yield the columns in groups that fit; one that does not fit anywhere is a group."""
    group: list[Column] = []
    taken = 0
    for title, cells in columns:
        needed = _width(title, cells) + GAP
        if group and room is not None and taken + needed > room:
            yield group
            group, taken = [], 0
        group.append((title, cells))
        taken += needed
    yield group


def _columns(*titles: str) -> Table:
    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    for position, title in enumerate(titles):
        # What does not fit goes on below; but a name that is broken is no name.
        made.add_column(title, overflow="fold", no_wrap=position == 0)
    return made
