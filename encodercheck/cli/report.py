"""``encodercheck report``: a saved report on the terminal, and in the other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from encodercheck.cli import formats
from encodercheck.cli.formats import Outputs
from encodercheck.cli.output import console

Saved = Annotated[
    Path, typer.Argument(metavar="REPORT.json", help="What scan --json wrote.", show_default=False)
]


def command(
    report: Saved,
    junit: formats.Junit = None,
    sarif: formats.Sarif = None,
    markdown: formats.Markdown = None,
    html: formats.Html = None,
    badge: formats.Badge = None,
) -> None:
    """Show a saved report, and write it in other formats, without scanning again.

    Exit code: that of the scan.
    """
    from encodercheck.known.baseline import read_reports
    from encodercheck.render import console as render
    from encodercheck.render.words import overall_exit_code

    outputs = Outputs(junit=junit, sarif=sarif, markdown=markdown, html=html, badge=badge)
    reports = read_reports(report)
    outputs.require_writable()
    with console(stderr=outputs.to_stdout) as screen:
        for saved in reports:
            screen.print(render.whole(saved))
            screen.print()
    outputs.write(reports)
    raise typer.Exit(overall_exit_code(reports))
