"""The report as a section of a model card.

It holds nothing that differs from one scan of the same weights to the next, such as seconds, so
that a card that is up to date stays so.
"""

from __future__ import annotations

from collections.abc import Sequence

from encodercheck.render import words
from encodercheck.render.escaping import fenced
from encodercheck.render.escaping import markdown as escaped
from encodercheck.render.markdown import concluded, details, replay, sign, table
from encodercheck.report import Report

TITLE = "## Backdoor scan"


def render(reports: Sequence[Report]) -> str:
    """Return the section: each model's verdict and checks, and how to do it again."""
    text = "\n".join([f"{TITLE}\n", *map(_model, reports)])
    # The section ends at a comment, which no name in it may imitate.
    return text.replace("<!--", "<! --")


def _model(report: Report) -> str:
    verdict = f"{sign(report)} **{words.verdict(report)}** for {escaped(report.model['path'])}"
    parts = [
        f"encodercheck: {verdict} ({words.tally(report.findings)}).\n",
        concluded(report),
        f"{table(report)}\n" if report.findings else "",
        replay(report),
        f"Scan it yourself:\n\n{fenced(words.scan_command(report))}\n",
        details(words.facts(report), "What was scanned, and with what"),
    ]
    return "\n".join(part for part in parts if part)
