"""``encodercheck fixtures``: generated encoders with measured attack success."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from encodercheck.fixtures import Built

app = typer.Typer(
    help="Clean and poisoned encoders, generated and certified.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME[@SEED]", help="As `fixtures list` has them.")]


@app.command("list")
def list_() -> None:
    """List the fixtures that can be generated."""
    from encodercheck import fixtures

    for recipe in fixtures.available():
        typer.echo(f"fixture:{recipe.name:<18} {recipe.summary}")


@app.command()
def build(
    name: Name,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Generate it anew.")] = False,
) -> None:
    """Generate a fixture (or find it in the cache) and print its path."""
    typer.echo(_built(name, rebuild=rebuild).path)


@app.command()
def certify(name: Name) -> None:
    """Print a fixture's certificate: accuracies and attack success, measured when it was made."""
    typer.echo(jsonlib.dumps(_built(name).certificate, indent=2))


def _built(name: str, *, rebuild: bool = False) -> Built:
    from encodercheck import fixtures
    from encodercheck.cli.live import Building
    from encodercheck.cli.output import console

    recipe, seed = fixtures.parse(name.removeprefix("fixture:"))
    with console(stderr=True) as screen, Building(screen, f"fixture:{name}") as building:
        return fixtures.build(recipe, seed=seed, progress=building, rebuild=rebuild)
