"""``encodercheck identify``: what a model is, without scanning it."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from encodercheck.cli import options
from encodercheck.errors import LoadError

if TYPE_CHECKING:
    from encodercheck.loading import Inspection


def command(
    model: options.Model,
    arch: options.Arch = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    tower: options.Tower = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which architecture a model is, how it was found, and which preprocessing it gets."""
    from encodercheck.loading import inspect
    from encodercheck.scanning import resolve

    try:
        found = inspect(
            resolve(model), arch=arch, image_size=image_size, mean=mean, std=std, tower=tower
        )
    except LoadError as error:
        if json:
            candidates = list(getattr(error, "candidates", ()))
            told = {"path": model, "error": str(error), "candidates": candidates}
            typer.echo(jsonlib.dumps(told, indent=2))
        raise
    if json:
        typer.echo(jsonlib.dumps(described(found), indent=2))
    else:
        _print(found)


def described(found: Inspection) -> dict[str, Any]:
    """Return an inspection as JSON-ready values."""
    chosen = found.preprocessing
    return {
        "path": found.path,
        "architecture": found.architecture,
        "found_by": found.found_by,
        "image_size": chosen.image_size,
        "mean": list(chosen.mean),
        "std": list(chosen.std),
        "sources": {part: chosen.source_of(part) for part in ("image_size", "mean", "std")},
        "tensors": found.tensors,
        "parameters": found.parameters,
        "text_tower": found.text_tower and found.text_tower.describe(),
        "notes": list(found.notes),
    }


def _print(found: Inspection) -> None:
    from encodercheck.cli.output import console
    from encodercheck.render.console import printable

    chosen = found.preprocessing
    tower = found.text_tower
    rows = [
        ("path", found.path),
        ("architecture", found.architecture),
        ("found by", found.found_by),
        ("image size", f"{chosen.image_size}  ({chosen.source_of('image_size')})"),
        ("mean", f"{_triple(chosen.mean)}  ({chosen.source_of('mean')})"),
        ("std", f"{_triple(chosen.std)}  ({chosen.source_of('std')})"),
        ("tensors", f"{found.tensors}, {found.parameters / 1e6:.2f} M parameters"),
        (
            "text tower",
            f"{tower.vocabulary} tokens of width {tower.width}, {tower.parameters / 1e6:.2f} M "
            "parameters; not scanned"
            if tower
            else "none",
        ),
        *(("note", note) for note in found.notes),
    ]
    with console() as screen:
        for name, value in rows:
            screen.print(f"{name:<13} {printable(value)}")


def _triple(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
