"""``encodercheck identify``: what a model file is, without scanning it."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from typing import Annotated

import typer

from encodercheck.cli import options


def command(
    model: options.Model,
    arch: options.Arch = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which architecture a model is, how it was found, and which preprocessing it gets."""
    from encodercheck.cli.output import console
    from encodercheck.loading import inspect
    from encodercheck.render.console import printable
    from encodercheck.scanning import resolve

    found = asdict(inspect(resolve(model), arch=arch))
    found |= found.pop("preprocessing")
    if json:
        typer.echo(jsonlib.dumps(found, indent=2))
        return
    with console() as screen:
        for key, value in found.items():
            text = "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            screen.print(f"{key:<14} {printable(text)}")
