"""``encodercheck merge``: the results of several runs, as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from encodercheck.cli import formats
from encodercheck.cli.formats import Outputs
from encodercheck.cli.output import console
from encodercheck.cli.scan_many import show


def command(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="What scan --out wrote.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Where all of it goes; what is there already stays."),
    ],
    json: formats.Json = None,
    junit: formats.Junit = None,
    sarif: formats.Sarif = None,
    markdown: formats.Markdown = None,
    html: formats.Html = None,
    badge: formats.Badge = None,
) -> None:
    """Put the results of several scans together, as of --shard, and show them.

    Of two results of a model the later one holds. Exit code: that of a scan of all the models.
    """
    from encodercheck.render import summary
    from encodercheck.render.words import printable
    from encodercheck.zoo import merging, saved
    from encodercheck.zoo.rows import row_of, worst

    outputs = Outputs(
        json=json, junit=junit, sarif=sarif, markdown=markdown, html=html, badge=badge
    )
    outputs.require_writable()
    merged = merging.merge(folders, out)
    rows, reports = [], []
    for number, result in enumerate(saved.of(out)):
        report = result.report()
        rows.append(row_of(number, result.model, report))
        # They are held for formats alone: there may be very many.
        reports += [report] if outputs.any else []
    code = worst(row.exit_code for row in rows)
    with console(stderr=outputs.to_stdout) as screen:
        for line in merged.conflicts:
            screen.print(f"conflict: {printable(line)}", style="yellow")
        show(screen, summary.table(rows), summary.left_out(rows))
        screen.print(summary.totals(rows, code))
    outputs.write(reports)
    raise typer.Exit(code)
