"""What changed between two runs, on the terminal: counts, then the models that changed."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from encodercheck.known.baseline import Change, Kind, Moved
from encodercheck.render.changes import WORDS as KINDS
from encodercheck.render.words import bound, counted, cut, number, printable
from encodercheck.report import Outcome
from encodercheck.zoo.diffing import Fate, ModelDiff, RunDiff

WORDS = {
    Fate.NEWLY_FAILED: "newly failed",
    Fate.LOST_VERDICT: "lost the verdict",
    Fate.GONE: "gone",
    Fate.NEW: "new",
    Fate.FIXED: "fixed",
    Fate.VERDICT: "other verdict",
    Fate.CHECKS: "same verdict, checks changed",
    Fate.MEASUREMENTS: "measurements moved",
    Fate.WEIGHTS: "other weights, same results",
}
WORSE, BETTER, QUIET = "bold red", "green", "dim"
MOST_SETTINGS, MOST_CHANGES, MOST_MOVED, MOST_FAULTS = 10, 3, 1, 5
LONGEST_NAME, LONGEST_SETTING = 100, 160


def whole(found: RunDiff, *, most: int) -> Iterator[Text | Table]:
    """Yield what a terminal shows: a verdict, counts, and at most so many models."""
    yield summary(found)
    shown = found.models[:most]
    if shown:
        yield Text()
        yield table(shown)
    rest = len(found.models) - len(shown)
    if rest:
        more = counted(rest, "more model")
        yield Text(f"\n{more} changed: --show N lists them, --json F has all of them")


def summary(found: RunDiff) -> Text:
    """Say what happened to how many models, and what was set otherwise."""
    text = Text(f"{printable(found.before)} -> {printable(found.after)}\n", style="bold")
    text.append(f"  {counted(found.compared, 'model')} in both", style="not bold")
    for fate, count in found.fates.items():
        style = WORSE if fate in (Fate.NEWLY_FAILED, Fate.LOST_VERDICT) else "not bold"
        text.append(f"\n  {count:>7,} {WORDS[fate]}", style=style)
    checks = checks_told(found)
    if checks:
        text.append(f"\n  checks: {checks}", style="not bold")
    for line in settings_told(found):
        text.append(f"\n  set otherwise: {line}", style="yellow not bold")
    for fault in faults_told(found):
        text.append(f"\n  unreadable: {fault}", style="bold magenta")
    text.append("\n").append_text(_verdict(found))
    return text


def table(models: tuple[ModelDiff, ...]) -> Table:
    """Return a line for each model."""
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    made.add_column("model", overflow="fold", ratio=2)
    made.add_column("verdict", no_wrap=True)
    made.add_column("what changed", overflow="fold", ratio=3)
    for model in models:
        style = WORSE if model.worse else BETTER if model.fate is Fate.FIXED else ""
        verdict = Text(verdict_told(model), style=style)
        made.add_row(Text(name_told(model)), verdict, Text("\n").join(_changes(model)))
    return made


def name_told(model: ModelDiff) -> str:
    """Return the name of a model, with that which it had before."""
    was = f" (was {cut(model.was, LONGEST_NAME)})" if model.was else ""
    return f"{cut(model.model, LONGEST_NAME)}{was}"


def verdict_told(model: ModelDiff) -> str:
    """Say how a model ended before and after, as "passed -> failed"."""
    if model.before == model.after:
        return model.after or ""
    states = ("new" if model.before is None else model.before, model.after or "gone")
    return " -> ".join(states) if model.before else f"new, {model.after}"


def change_told(change: Change) -> str:
    """Say what happened to a check in a line, as "EC202 newly failed: gain 0.4 -> 0.99"."""
    told = f"{cut(change.id, LONGEST_NAME)} {KINDS[change.kind]}"
    if change.kind in (Kind.OUTCOME, Kind.NEW, Kind.GONE):
        told += f" ({' -> '.join(filter(None, (change.before, change.after)))})"
    moved = sorted(change.measurements, key=_weight)
    values = [_moved(one) for one in moved[:MOST_MOVED]]
    more = len(moved) - MOST_MOVED
    values += [f"{more} more"] if more > 0 else []
    return f"{told}: {', '.join(values)}" if values else told


def leading(model: ModelDiff) -> tuple[list[Change], str]:
    """Return what happened to its checks in short: what got worse first, and how many more moved.

    That values moved is news only where nothing else is.
    """
    order = list(KINDS)
    ended = [change for change in model.changes if change.kind is not Kind.MEASUREMENTS]
    ended.sort(key=lambda change: (change.id not in model.worse, order.index(change.kind)))
    shown = (ended or list(model.changes))[:MOST_CHANGES]
    rest = len(model.changes) - len(shown)
    return shown, f"and {counted(rest, 'more check')}" if rest else ""


def checks_told(found: RunDiff) -> str:
    """Say what happened to how many checks of all models."""
    told = [
        f"{count:,} {KINDS[kind]}"
        for kind in Kind
        if (count := found.checks[kind.value]) and kind is not Kind.MEASUREMENTS
    ]
    if found.moved:
        share = f"{found.tolerance:g} of {'it' if found.moved == 1 else 'them'}"
        told.append(f"{counted(found.moved, 'measurement')} moved by more than {share}")
    return ", ".join(told)


def settings_told(found: RunDiff) -> Iterator[str]:
    """Say what was set otherwise, the commonest first."""
    for what, count in found.settings[:MOST_SETTINGS]:
        yield f"{cut(what, LONGEST_SETTING)} ({counted(count, 'model')})"
    more = len(found.settings) - MOST_SETTINGS
    if more > 0:
        yield counted(more, "other difference")


def faults_told(found: RunDiff) -> Iterator[str]:
    """Say what could not be read."""
    yield from (printable(fault) for fault in found.unreadable[:MOST_FAULTS])
    more = len(found.unreadable) - MOST_FAULTS
    if more > 0:
        yield f"{more:,} more"


def verdict_words(found: RunDiff) -> str:
    """Say whether anything got worse."""
    worse = sum(bool(model.worse) for model in found.models)
    if worse:
        return f"WORSE: {counted(worse, 'model')}"
    if found.unreadable:
        return "NO VERDICT: not everything could be read"
    return "NOTHING GOT WORSE" if found.models else "NOTHING CHANGED"


def _weight(moved: Moved) -> tuple[bool, bool]:
    """Return what is told first: a value beyond its limit, then one that has a limit."""
    now = moved.after or moved.before
    assert now is not None
    return now.outcome is not Outcome.FAILED, now.limit is None


def _moved(moved: Moved) -> str:
    name = cut(moved.name, LONGEST_NAME)
    old, new = (m and f"{number(m.value)}{bound(m)}" for m in (moved.before, moved.after))
    if moved.before and moved.after and moved.before.limit == moved.after.limit:
        old = number(moved.before.value)
    return f"{name} {old or 'nothing'} -> {new or 'nothing'}"


def _verdict(found: RunDiff) -> Text:
    style = {0: "green", 1: WORSE, 2: "bold magenta"}[found.exit_code]
    return Text(verdict_words(found), style=f"{style} reverse")


def _changes(model: ModelDiff) -> Iterator[Text]:
    if model.other_weights and model.fate is not Fate.WEIGHTS:
        yield Text("other weights", style="yellow")
    if model.fate is Fate.WEIGHTS:
        yield Text(WORDS[Fate.WEIGHTS], style="yellow")
    changes, more = leading(model)
    for change in changes:
        yield Text(change_told(change), style=WORSE if change.id in model.worse else "")
    if more:
        yield Text(more, style=QUIET)
