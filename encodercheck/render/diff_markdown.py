"""What changed between two runs as Markdown, as a job summary or a comment on GitHub shows it."""

from __future__ import annotations

from encodercheck.render import diff
from encodercheck.render.escaping import markdown as escaped
from encodercheck.render.markdown import MOST_TABLE, fitting, left_out
from encodercheck.render.words import counted, cut
from encodercheck.zoo.diffing import Fate, ModelDiff, RunDiff

SIGNS = {0: "✅", 1: "❌", 2: "⚠️"}
LONGEST = 500


def render(found: RunDiff) -> str:
    """Return a summary with counts, and a table of the models that changed, the gravest first."""
    both = counted(found.compared, "model")
    parts = [
        f"## encodercheck diff: {SIGNS[found.exit_code]} {diff.verdict_words(found)}",
        f"{_short(found.before)} → {_short(found.after)}, {both} in both",
        _list([f"{count:,} {diff.WORDS[fate]}" for fate, count in found.fates.items()]),
        escaped(diff.checks_told(found)),
        _list([f"set otherwise: {_short(line)}" for line in diff.settings_told(found)]),
        _list([f"unreadable: {_short(line)}" for line in diff.faults_told(found)]),
        _table(found.models),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(models: tuple[ModelDiff, ...]) -> str:
    if not models:
        return ""
    head = ["| Model | Verdict | What changed |", "| --- | --- | --- |"]
    rows = fitting(map(_row, models), MOST_TABLE)
    rest = len(models) - len(rows)
    more = [f"\n{left_out(rest, 'model')}: see the JSON."] if rest else []
    return "\n".join([*head, *rows, *more])


def _row(model: ModelDiff) -> str:
    sign = f"{SIGNS[1]} " if model.worse else ""
    changes, more = diff.leading(model)
    shown = [_short(diff.change_told(change)) for change in changes] + ([more] if more else [])
    if model.other_weights:
        shown.insert(0, "other weights" if changes else diff.WORDS[Fate.WEIGHTS])
    name = escaped(diff.name_told(model))
    return f"| {name} | {sign}{diff.verdict_told(model)} | {'<br>'.join(shown)} |"


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _short(text: str) -> str:
    return escaped(cut(text, LONGEST))
