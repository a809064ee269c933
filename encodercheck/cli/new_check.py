"""``encodercheck new-check``: a check to start from, and its test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from encodercheck.cli.options import SeverityName


def command(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="What the check is called, as corner_squares."),
    ],
    id_: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Its unique id.", show_default="NAME in capitals"),
    ] = None,
    severity: Annotated[
        SeverityName, typer.Option(help="How grave a failure is.")
    ] = SeverityName.medium,
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="The folder to write into.")
    ] = Path(),
) -> None:
    """Write a check that works, and a test that holds it to what it catches.

    Nothing is overwritten.
    """
    from encodercheck import scaffolding
    from encodercheck.harness.runner import builtin_suite

    beside = (builtin_suite(), directory)
    texts = scaffolding.check_files(name, id_, severity.value, beside=beside)
    files = {directory / file: text for file, text in texts.items()}
    scaffolding.write_new(files, way_out="choose another NAME or --dir")
    check, test = files
    typer.echo(f"wrote {check}\nwrote {test}\n\nNext:")
    typer.echo(f"  encodercheck scan MODEL --checks {_shell(check)}")
    typer.echo(f"  pytest {_shell(test)}")


def _shell(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
