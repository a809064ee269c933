"""``encodercheck zoo``: results of many models, as a page to search and a table to compute on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encodercheck.cli.formats import Outputs
from encodercheck.cli.steps import steps
from encodercheck.errors import ConfigError

if TYPE_CHECKING:
    from encodercheck.progress import Progress
    from encodercheck.report import Report
    from encodercheck.zoo.saved import Result

NO_VERDICT = 2
INDEX = "index.html"
MOST_FAULTS = 5


def command(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="The output folder of a scan of many models.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="F", help="Where the page goes (default: DIR/index.html)."),
    ] = None,
    parquet: Annotated[
        Path | None,
        typer.Option(metavar="F", help="Write a Parquet table; the page then only with --out."),
    ] = None,
    reports: Annotated[
        bool,
        typer.Option("--reports/--no-reports", help="Write the report.html of each model too."),
    ] = True,
) -> None:
    """Write what is known of many models as a searchable page, or as a Parquet table.

    Exit code: 0 written, 2 a result could not be read; it is written as a model without a verdict.
    """
    from encodercheck.zoo import saved

    if out is None and parquet is None:
        out = folder / INDEX
    _require_places(out, parquet)
    results = saved.of(folder)
    faults = [] if out is None else _write_page(results, out, with_reports=reports)
    if parquet is not None:
        # The page has told them already, where there is one.
        told = _write_parquet(results, parquet)
        faults = faults or told
    if faults:
        _tell(faults)
        raise typer.Exit(NO_VERDICT)


def _require_places(out: Path | None, parquet: Path | None) -> None:
    from encodercheck.zoo import parquet as table

    places = Outputs(out=out, parquet=parquet)
    if places.to_stdout:
        raise ConfigError("-: neither a page nor a table goes to stdout; name a file")
    if parquet is not None:
        table.require()
    places.require_writable()


def _write_page(results: Sequence[Result], out: Path, *, with_reports: bool) -> list[str]:
    from encodercheck.render.console import printable
    from encodercheck.render.zoo_page import site

    with steps("pages") as progress:
        rows, faults = site.build(results, out, with_reports=with_reports, progress=progress)
    typer.echo(f"{printable(out)}: {site.sentence(rows)}")
    return faults


def _write_parquet(results: Sequence[Result], path: Path) -> list[str]:
    from encodercheck.render.words import counted, printable
    from encodercheck.zoo import parquet
    from encodercheck.zoo.saved import readable

    faults: list[str] = []

    def read(progress: Progress) -> Iterator[tuple[Result, Report]]:
        for step, result in enumerate(results):
            progress(step, len(results))
            yield result, readable(result, faults)

    with steps("rows") as progress:
        count = parquet.write(path, read(progress))
    told = f"{counted(count, 'row')} on {counted(len(results), 'model')}"
    typer.echo(f"{printable(path)}: {told}")
    return faults


def _tell(faults: Sequence[str]) -> None:
    from encodercheck.render.console import printable

    for fault in faults[:MOST_FAULTS]:
        typer.echo(f"encodercheck: {printable(fault)}", err=True)
    if len(faults) > MOST_FAULTS:
        typer.echo(f"encodercheck: and {len(faults) - MOST_FAULTS:,} more", err=True)
