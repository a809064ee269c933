"""``encodercheck fixtures``: generated encoders with measured attack success."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated

import typer

from encodercheck.cli import completion, options

if TYPE_CHECKING:
    from encodercheck.fixtures import Built, Recipe

app = typer.Typer(
    help="Clean and poisoned encoders, generated and certified.", no_args_is_help=True
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@SEED]",
        help="As `fixtures list` has them.",
        autocompletion=completion.fixtures,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="SRC",
        help="Train on real images: cifar10:DIR, stl10:DIR, svhn:DIR or gtsrb:DIR.",
        show_default="generated images",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="paper-resnet18, -resnet34 or -resnet50: BadEncoder's hyper-parameters, for a GPU.",
        show_default=False,
    ),
]
# Where scans run says nothing of where a fixture is to be trained: a variable does not set it.
TrainingDevice = Annotated[
    options.DeviceName, typer.Option("--device", help="Where the encoder is trained.")
]


@app.command("list")
def list_() -> None:
    """List the fixtures that can be generated."""
    from encodercheck import fixtures

    for recipe in fixtures.available():
        typer.echo(f"fixture:{recipe.name:<27} {recipe.summary}")


@app.command()
def build(
    name: Name,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Generate it anew.")] = False,
    data: Data = None,
    preset: Preset = None,
    device: TrainingDevice = options.DeviceName.cpu,
) -> None:
    """Generate a fixture (or find it in the cache) and print its path."""
    built = _built(name, rebuild=rebuild, data=data, preset=preset, device=device)
    typer.echo(built.path)


@app.command()
def certify(
    name: Name,
    data: Data = None,
    preset: Preset = None,
    device: TrainingDevice = options.DeviceName.cpu,
) -> None:
    """Print a fixture's certificate: accuracies and attack success, measured when it was made."""
    built = _built(name, data=data, preset=preset, device=device)
    typer.echo(jsonlib.dumps(built.certificate, indent=2))


def _built(
    name: str,
    *,
    rebuild: bool = False,
    data: str | None,
    preset: str | None,
    device: options.DeviceName,
) -> Built:
    from encodercheck import fixtures
    from encodercheck.cli.live import Building
    from encodercheck.cli.output import console

    plain, seed = fixtures.parse(name.removeprefix("fixture:"))
    recipe = _recipe(plain, data, preset)
    where = _device(device)
    with console(stderr=True) as screen, Building(screen, f"fixture:{name}") as building:
        return fixtures.build(recipe, seed=seed, device=where, progress=building, rebuild=rebuild)


def _recipe(name: str, data: str | None, preset: str | None) -> Recipe:
    from encodercheck.fixtures import presets
    from encodercheck.fixtures.catalogue import RECIPES

    recipe = RECIPES[name]
    if preset is not None:
        recipe = presets.preset(recipe, preset)
    return recipe if data is None else presets.on(recipe, data)


def _device(device: options.DeviceName) -> str:
    """Return the device to train on.

    Raises:
        ConfigError: it is not there.
    """
    if device is options.DeviceName.cpu:
        return "cpu"
    from encodercheck.encoder import pick_device

    return str(pick_device(device.value))
