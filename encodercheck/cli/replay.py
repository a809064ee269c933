"""``encodercheck replay``: measure a saved trigger again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from encodercheck.cli import options


def command(
    witness: Annotated[Path, typer.Argument(metavar="WITNESS", help="A witness.safetensors.")],
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A .safetensors file, a model folder, hf://ORG/NAME[@REV], or fixture:NAME; none "
            "for the black box that --arch names as package.module:callable.",
            show_default=False,
        ),
    ] = None,
    images: options.Images = None,
    count: Annotated[int, typer.Option(metavar="N", min=2, help="How many images.")] = 256,
    arch: options.Arch = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    tower: options.Tower = None,
    device: options.Device = options.DeviceName.auto,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Which images (default: others than the scan's)."),
    ] = None,
) -> None:
    """Stamp a saved trigger on fresh images. Exit code 1: it works again; 0: it does not."""
    from encodercheck.cli.live import open_encoder
    from encodercheck.cli.output import console
    from encodercheck.images import source
    from encodercheck.render import console as render
    from encodercheck.replaying import replay, reproduced
    from encodercheck.witness import Witness

    saved = Witness.load(witness)
    with console() as screen:
        encoder = open_encoder(
            screen,
            model,
            arch=arch,
            image_size=image_size,
            mean=mean,
            std=std,
            tower=tower,
            device=device.value,
        )
        fresh = seed if seed is not None else saved.seed + 1
        chosen = source.collect(images, count, size=encoder.image_size, seed=fresh)
        measured = replay(encoder, saved, chosen.images)
        works = reproduced(saved, measured)
        same_model = saved.found_on(encoder.provenance.sha256)
        screen.print(render.replayed(saved, measured, same_model=same_model, reproduced=works))
    raise typer.Exit(1 if works else 0)
