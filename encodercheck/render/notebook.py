"""A report where a notebook shows it: one HTML fragment that brings all it needs.

Styles are inline, because notebooks that are shown elsewhere lose style sheets. Text has the
notebook's own colour, and colours of outcomes are in the middle, so that light and dark do.
"""

from __future__ import annotations

from html import escape

from encodercheck.render import words
from encodercheck.report import Finding, Outcome, Report

COLOURS = {
    Outcome.PASSED: "#2b9a57",
    Outcome.FAILED: "#dc4a41",
    Outcome.INCONCLUSIVE: "#b5851b",
    Outcome.ERROR: "#ab58cf",
}
# Names and messages come from untrusted files: they can be any length.
LONGEST = 500
LINE = "border-top:1px solid rgba(128,128,128,.35);"
CELL = f"{LINE}padding:.3em .8em .3em 0;text-align:left;vertical-align:top;background:none;"
FAINT = "opacity:.7;"


def render(report: Report) -> str:
    """Return the report as an HTML fragment."""
    # No verdict is no pass, whatever has passed.
    colour = COLOURS[Outcome.INCONCLUSIVE if report.exit_code == 2 else report.outcome]
    rows = "".join(map(_row, report.findings))
    command = words.replay_command(report)
    replay = f'<div style="margin-top:.5em">{_code(command)}</div>' if command else ""
    return (
        '<div style="color:inherit;font-size:.95em;line-height:1.4">'
        f'<div><b style="color:{colour}">{_text(words.verdict(report))}</b> '
        f"<b>{_text(report.model['path'])}</b></div>"
        f'<div style="{FAINT}">{_text(_facts(report))}</div>'
        f'<table style="border-collapse:collapse;margin:.5em 0 0;color:inherit">{rows}</table>'
        f"{replay}</div>"
    )


def _facts(report: Report) -> str:
    model, images = report.model, report.images
    facts = [
        words.tally(report.findings),
        str(model["architecture"]),
        f"{images['count']} {images['source']} images",
        f"profile {report.profile}",
        f"seed {report.seed}",
        f"{report.seconds:.1f} s",
    ]
    return " · ".join(facts)


def _row(finding: Finding) -> str:
    colour = COLOURS[finding.outcome]
    cells = (
        f"<b>{_text(finding.id)}</b>",
        f'<span style="color:{colour}">{_text(words.status(finding))}</span>',
        _story(finding),
    )
    return "<tr>" + "".join(f'<td style="{CELL}">{cell}</td>' for cell in cells) + "</tr>"


def _story(finding: Finding) -> str:
    """What the check is about, what it measured, and what it has to say."""
    lines = [_text(finding.title or finding.check)]
    if finding.measurements:
        values = " · ".join(map(words.measured, finding.measurements))
        lines.append(f'<span style="{FAINT}">{_text(values)}</span>')
    if finding.message:
        lines.append(_text(finding.message))
    if finding.witness:
        lines.append(f"witness: {_code(finding.witness)}")
    return "<br>".join(lines)


def _code(text: str) -> str:
    return f'<code style="background:none;color:inherit">{_text(text)}</code>'


def _text(text: object) -> str:
    return escape(words.cut(text, LONGEST))
