"""The report as Markdown, as a job summary or a comment on GitHub shows it.

A summary holds one mebibyte and is refused beyond: what is too much is left out, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from encodercheck.render import words
from encodercheck.render.conclusion import conclusion
from encodercheck.render.escaping import fenced
from encodercheck.render.escaping import markdown as escaped
from encodercheck.render.words import cut
from encodercheck.report import Finding, Outcome, Report

# In bytes, of all and of one table. The rest of a section is bounded by the lengths below.
MOST, MOST_TABLE = 900_000, 200_000
LONGEST_NAME, LONGEST_TEXT, LONGEST_COMMAND, MOST_FACTS = 200, 500, 2000, 40
SIGNS = {
    Outcome.PASSED: "✅",
    Outcome.FAILED: "❌",
    Outcome.INCONCLUSIVE: "❔",
    Outcome.ERROR: "⚠️",
}
WAIVED = "🔕"
NO_VERDICT = "⚠️"
HEADINGS = {0: "✅ PASSED", 1: "❌ FAILED", 2: f"{NO_VERDICT} NO VERDICT"}
TITLE = "## encodercheck:"
# What is read first where not everything fits.
GRAVITY = (1, 2, 0)


def render(reports: Sequence[Report]) -> str:
    """Return a summary with the verdict on top and a section per model, the gravest first."""
    graded = sorted(reports, key=lambda report: GRAVITY.index(report.exit_code))
    if len(graded) == 1:
        only = graded[0]
        return f"{TITLE} {sign(only)} {words.verdict(only)}\n\n{_section(only)}"
    heading = HEADINGS[words.overall_exit_code(reports)]
    counts = Counter(words.verdict(report) for report in graded)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    top = f"{TITLE} {heading}\n\n{len(graded)} models: {told}\n"
    sections = (f"### {sign(r)} {words.verdict(r)}: {_name(r)}\n\n{_section(r)}" for r in graded)
    kept = fitting(sections, MOST)
    more = len(graded) - len(kept)
    rest = [f"{left_out(more, 'model')}: see the report's JSON.\n"] if more else []
    return "\n".join([top, *kept, *rest])


def table(report: Report) -> str:
    """Return the checks as a table, those that did not pass first where not all of them fit."""
    head = ["| Check | Outcome | Found |", "| --- | --- | --- |"]
    findings = report.findings
    rows = fitting(map(_row, findings), MOST_TABLE)
    if len(rows) == len(findings):
        return "\n".join([*head, *rows])
    graded = sorted(findings, key=lambda f: (f.outcome is Outcome.PASSED, not f.counts))
    rows = fitting(map(_row, graded), MOST_TABLE)
    more = left_out(len(findings) - len(rows), "check")
    return "\n".join([*head, *rows, f"\n{more}: see the report's JSON."])


def left_out(count: int, thing: str) -> str:
    """Say that there is more than fits, as "2 more models do not fit here"."""
    verb = "does" if count == 1 else "do"
    return f"{words.counted(count, f'more {thing}')} {verb} not fit here"


def details(facts: Iterable[tuple[str, str]], title: str) -> str:
    """Return names and values as a table that is folded away."""
    rows = [f"| {escaped(name)} | {_short(value)} |" for name, value in facts]
    lines = ["| | |", "| --- | --- |", *rows[:MOST_FACTS]]
    return "\n".join([f"<details><summary>{title}</summary>", "", *lines, "", "</details>", ""])


def concluded(report: Report) -> str:
    """Return what the verdict means, see :mod:`~encodercheck.render.conclusion`."""
    return f"{_short(conclusion(report))}\n"


def replay(report: Report) -> str:
    """Say how to see a trigger work again; empty where there is none."""
    command = words.replay_command(report)
    if command is None or len(command) > LONGEST_COMMAND:
        return ""
    return f"See the trigger work again:\n\n{fenced(command)}\n"


def sign(report: Report) -> str:
    """Return a picture of a verdict."""
    return SIGNS[report.outcome] if report.exit_code < 2 else NO_VERDICT


def fitting(texts: Iterable[str], most: int) -> list[str]:
    """Return the first of ``texts`` that take at most so many bytes together, a newline each."""
    kept: list[str] = []
    for text in texts:
        most -= len(text.encode()) + 1
        if most < 0:
            break
        kept.append(text)
    return kept


def _section(report: Report) -> str:
    tally = f"{_name(report)}: {words.tally(report.findings)} in {report.seconds:.1f} s"
    parts = [
        f"{tally}\n",
        concluded(report),
        f"{table(report)}\n" if report.findings else "",
        replay(report),
    ]
    if report.memory.weights_bytes:
        facts = [*words.facts(report), ("memory", words.memory(report.memory))]
    else:
        facts = words.facts(report)
    return "\n".join(part for part in [*parts, details(facts, "How it was scanned")] if part)


def _row(finding: Finding) -> str:
    about = finding.title or finding.check
    check = f"**{escaped(cut(finding.id, LONGEST_NAME))}** {escaped(cut(about, LONGEST_NAME))}"
    shown = SIGNS[finding.outcome] if finding.counts else WAIVED
    outcome = f"{shown} {_short(words.status(finding))}"
    return f"| {check} | {outcome} | {_found(finding)} |"


def _found(finding: Finding) -> str:
    values = " · ".join(map(words.measured, finding.measurements))
    return "<br>".join(_short(text) for text in (finding.message, values) if text)


def _name(report: Report) -> str:
    return escaped(cut(report.model["path"], LONGEST_NAME))


def _short(text: str) -> str:
    return escaped(cut(text, LONGEST_TEXT))
