"""``encodercheck diff``: what changed between two runs, over one model or over thousands."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from encodercheck.cli.formats import Outputs
from encodercheck.cli.output import console
from encodercheck.cli.steps import steps
from encodercheck.errors import ConfigError

WHAT = "A file that scan --json wrote, or the output folder of a scan of many models."


def command(
    before: Annotated[Path, typer.Argument(metavar="A", help=f"Before. {WHAT}")],
    after: Annotated[Path, typer.Argument(metavar="B", help="After. The same.")],
    tolerance: Annotated[
        float,
        typer.Option(metavar="X", help="Values moved that differ by more than this part of them."),
    ] = 1e-3,
    allow_gone: Annotated[
        bool, typer.Option("--allow-gone", help="A model or check that is gone is nothing worse.")
    ] = False,
    most: Annotated[
        int, typer.Option("--show", metavar="N", min=0, help="How many models to list.")
    ] = 50,
    json: Annotated[
        Path | None, typer.Option(metavar="F", help="Write all of it as JSON; - is stdout.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="F", help="Write it as Markdown; - is stdout.")
    ] = None,
) -> None:
    """Say what changed from A to B: models, verdicts, checks, measurements and settings.

    Exit code: 0 nothing got worse, 1 something failed that had not, or lost its verdict, 2 a result
    could not be read.
    """
    from encodercheck.render import diff as render
    from encodercheck.render import diff_markdown
    from encodercheck.zoo import diffing

    if not 0 <= tolerance < math.inf:
        raise ConfigError(f"--tolerance {tolerance}: name a part, as 0.001; 0 counts every change")
    outputs = Outputs(json=json, markdown=markdown)
    outputs.require_writable()
    runs = diffing.Run.open(before), diffing.Run.open(after)
    with steps("models") as progress:
        found = diffing.diff(*runs, tolerance=tolerance, allow_gone=allow_gone, progress=progress)
    renders = {"json": diffing.as_json, "markdown": diff_markdown.render}
    with console(stderr=outputs.to_stdout) as screen:
        for part in render.whole(found, most=most):
            screen.print(part)
    outputs.write_texts(lambda name, _: renders[name](found))
    raise typer.Exit(found.exit_code)
