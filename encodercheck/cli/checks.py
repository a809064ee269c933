"""``encodercheck checks``: the suite."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from encodercheck.cli import options

if TYPE_CHECKING:
    from encodercheck.harness.origins import Listed

SCHEMA = "encodercheck.checks/1"


def command(
    checks: options.Checks = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the checks a scan runs: id, severity, where it comes from, and what it means.

    A check is built in, comes with an installed pack, or from a --checks PATH.
    """
    from encodercheck.harness.origins import list_origins

    listed = list_origins(checks or [])
    if json:
        told = {"schema": SCHEMA, "checks": [described(check) for check in listed]}
        typer.echo(jsonlib.dumps(told, indent=2))
    else:
        _print(listed)


def described(check: Listed) -> dict[str, Any]:
    """Return a check as JSON-ready values."""
    info, origin = check.info, check.origin
    return {
        "id": info.id,
        "severity": info.severity,
        "title": info.title,
        "catches": list(info.catches),
        "function": info.check.partition("::")[2],
        "file": str(check.file),
        "origin": {
            "kind": origin.kind,
            "name": origin.name or None,
            "version": origin.version or None,
            "path": str(origin.path),
        },
    }


def _print(listed: list[Listed]) -> None:
    from encodercheck.cli.output import console
    from encodercheck.render.console import printable

    rows = [
        [printable(c.info.id), c.info.severity, printable(str(c.origin)), printable(c.info.title)]
        for c in listed
    ]
    widths = [max(9, *(len(row[column]) for row in rows)) for column in range(3)]
    with console() as screen:
        for *columns, title in rows:
            cells = [cell.ljust(width) for cell, width in zip(columns, widths, strict=True)]
            screen.print(" ".join([*cells, title]).rstrip())
