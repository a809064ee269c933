"""What has changed since a baseline, on the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from encodercheck.known.baseline import Change, Difference, Kind, Moved
from encodercheck.render.words import number, printable
from encodercheck.report import Measurement

STYLES = {
    Kind.NEWLY_FAILED: "bold red",
    Kind.FIXED: "green",
    Kind.OUTCOME: "yellow",
    Kind.MEASUREMENTS: "",
    Kind.NEW: "",
    Kind.GONE: "yellow",
}
WORDS = {
    Kind.NEWLY_FAILED: "newly failed",
    Kind.FIXED: "fixed",
    Kind.OUTCOME: "changed",
    Kind.MEASUREMENTS: "moved",
    Kind.NEW: "new",
    Kind.GONE: "gone",
}
INDENT = " " * 10


def changes(found: Difference) -> Text:
    """Say what has changed; where nothing has, say that."""
    text = Text(f"since {printable(found.baseline)}", style="bold")
    if not found.known:
        return text.append(": this model is not in it, nothing to compare with", style="yellow")
    if not found.same_weights:
        text.append("\n  other weights under the same name", style="yellow")
    for setting in found.settings:
        text.append(f"\n  {printable(setting)}", style="dim")
    for change in found.changes:
        text.append("\n").append_text(_change(change))
    if not found.changes:
        text.append("\n  no check ends or measures otherwise", style="dim")
    return text


def _change(change: Change) -> Text:
    text = Text(f"{printable(change.id):<9} ", style="bold")
    text.append(f"{WORDS[change.kind]:<13}", style=STYLES[change.kind])
    if change.before == change.after:
        text.append(change.after or "")
    else:
        text.append(" -> ".join(printable(state) for state in _states(change)))
    for moved in change.measurements:
        text.append(f"\n{INDENT}{_moved(moved)}", style="dim")
    return text


def _states(change: Change) -> Iterator[str]:
    yield from (state for state in (change.before, change.after) if state is not None)


def _moved(moved: Moved) -> str:
    values = " -> ".join(_value(measurement) for measurement in (moved.before, moved.after))
    limits = [m.limit for m in (moved.before, moved.after) if m is not None]
    text = f"{printable(moved.name)} {values}"
    if len(set(map(str, limits))) > 1:
        shown = (number(limit) if limit is not None else "none" for limit in limits)
        text += f" (limit {' -> '.join(shown)})"
    return text


def _value(measurement: Measurement | None) -> str:
    return "nothing" if measurement is None else number(measurement.value)
