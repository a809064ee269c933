"""``encodercheck card``: what a scan found, as a section of a model card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from encodercheck.cli.report import Saved
from encodercheck.errors import OutputError

OUT_OF_DATE = 1


def command(
    report: Saved,
    readme: Annotated[
        Path,
        typer.Argument(metavar="README.md", help="The model card.", show_default=False),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if it is not up to date.")
    ] = False,
) -> None:
    """Write a saved report into a model card, between <!-- encodercheck:begin --> and end.

    The section is added where it is missing, and the tag encodercheck to the tags of the metadata.
    Everything else stays as it is.
    """
    from encodercheck.cache import atomic_write_bytes
    from encodercheck.known.baseline import read_reports
    from encodercheck.model_card import UnbalancedMarkers, updated
    from encodercheck.render import card as render
    from encodercheck.render.console import printable

    reports = read_reports(report)
    old = _read(readme)
    try:
        new = updated(old, render.render(reports))
    except UnbalancedMarkers as error:
        raise OutputError(f"{readme}: {error}; mend or remove them") from error
    name = printable(readme)
    if new == old:
        typer.echo(f"{name}: up to date")
    elif check:
        typer.echo(f"{name}: not up to date; run encodercheck card without --check")
        raise typer.Exit(OUT_OF_DATE)
    else:
        # Bytes that are no text stay the bytes that they are. A link stays a link.
        atomic_write_bytes(os.path.realpath(readme), new.encode(errors="surrogateescape"))
        typer.echo(f"{name}: updated")


def _read(readme: Path) -> str:
    if readme.exists() and not readme.is_file():
        raise OutputError(f"{readme}: is no regular file; name a model's README.md")
    try:
        return readme.read_bytes().decode(errors="surrogateescape")
    except FileNotFoundError as error:
        raise OutputError(
            f"{readme}: no such file; create it, or name a model's README.md"
        ) from error
    except OSError as error:
        raise OutputError(
            f"{readme}: cannot be read ({error.strerror}); name a model's README.md"
        ) from error
