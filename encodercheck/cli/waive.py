"""``encodercheck waive``: accept a failure, for a reason and until a day."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer

from encodercheck.errors import ConfigError


def command(
    report: Annotated[
        Path, typer.Argument(metavar="REPORT.json", help="What `scan --json` wrote.")
    ],
    check: Annotated[str, typer.Argument(metavar="CHECK", help="The id of the failed check.")],
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why the failure is accepted, and who says so.")
    ],
    expires: Annotated[
        datetime,
        typer.Option(metavar="YYYY-MM-DD", formats=["%Y-%m-%d"], help="The last day it holds."),
    ],
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Which one, where several failed: a path or sha256."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="F",
            help="Where it goes (default: the nearest configuration, or a new encodercheck.toml).",
        ),
    ] = None,
) -> None:
    """Accept a failure of one check on one model: append a waiver to the configuration."""
    from encodercheck.config import OWN, find, short
    from encodercheck.known import waiving
    from encodercheck.known.baseline import read_reports
    from encodercheck.render.console import printable

    waiver = waiving.waiver_for(
        read_reports(report),
        check,
        reason=reason,
        expires=expires.date(),
        today=date.today(),
        model=model,
    )
    path = config or find().path or Path(OWN)
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; name a file")
    waiving.add(path, waiver)
    until = f"{waiver.check} is waived until {waiver.expires} on sha256:{waiver.sha256}"
    typer.echo(printable(f"{short(path)}: {until}"))
