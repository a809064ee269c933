"""``encodercheck samples``: screen a folder of images for triggers."""

from __future__ import annotations

import io
import json as jsonlib
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from encodercheck.cli import configured, options
from encodercheck.cli.output import STDOUT, console, require_writable
from encodercheck.errors import CheckInconclusive, ConfigError, EncoderCheckError

if TYPE_CHECKING:
    from rich.console import Console

    from encodercheck.encoder import Encoder
    from encodercheck.screening import Samples, Screen

# Rows of the contact sheet: so many of the worst, and some normal ones below.
WORST_SHOWN = 8


class DecoderName(str, Enum):
    """What reconstructs images."""

    conv = "conv"
    transformer = "transformer"


class Sees(str, Enum):
    """What the encoder gets."""

    whole = "whole"
    masked = "masked"


class Score(str, Enum):
    """How an image is scored."""

    relative = "relative"
    error = "error"


def command(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="[MODEL] IMAGES",
            help="The encoder as for scan (none for a black box: --arch package.module:callable), "
            "and the folder of images to screen.",
        ),
    ],
    clean: Annotated[
        str | None,
        typer.Option(
            metavar="SRC",
            help="Clean images of the same kind, a folder or a data set as for scan --images "
            "(default: generated ones).",
        ),
    ] = None,
    clean_images: Annotated[
        int, typer.Option(metavar="N", min=300, help="Use at most this many of them.")
    ] = 4000,
    rate: Annotated[
        float,
        typer.Option(
            metavar="R", min=0.0001, max=0.5, help="Flag this part of clean images wrongly."
        ),
    ] = 0.03,
    sigmas: Annotated[
        float | None,
        typer.Option(metavar="K", help="Flag above mean + K standard deviations instead."),
    ] = None,
    decoder: Annotated[
        DecoderName, typer.Option(help="The decoder: fast, or as published.")
    ] = DecoderName.conv,
    patch: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Side of a patch in pixels (default: an eighth)."),
    ] = None,
    mask: Annotated[
        str,
        typer.Option(metavar="TRAIN,TEST", help="Parts of the patches hidden from the decoder."),
    ] = "0.9,0.99",
    sees: Annotated[
        Sees, typer.Option(help="Whether the encoder sees the whole image, as published.")
    ] = Sees.whole,
    score: Annotated[
        Score, typer.Option(help="Error relative to other images', or as published.")
    ] = Score.relative,
    top: Annotated[int, typer.Option(metavar="N", min=0, help="Images to list.")] = 20,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="F", help="Write the report as JSON; - is stdout."),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", metavar="F", help="Write all images, ranked, as CSV; - is stdout."),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Draw the worst and some normal images, reconstructed."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Score again what an earlier run has scored.")
    ] = False,
    arch: options.Arch = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    tower: options.Tower = None,
    device: options.Device = options.DeviceName.auto,
    seed: options.Seed = 0,
    max_memory: options.MaxMemory = None,
    config: configured.ConfigFile = None,
    no_config: configured.NoConfig = False,
) -> None:
    """Screen images for triggers, with DeDe.

    A decoder learns to reconstruct clean images from their embeddings.

    What a backdoor maps elsewhere cannot be reconstructed. An interrupted run goes on.

    Exit code 0: no more images are flagged than of clean ones; 1: more are; 2: no verdict.
    """
    model, images = _model_and_images(places, arch, tower)
    masks = _masks(mask)
    for path in (json, csv, sheet):
        require_writable(path)
    if [str(path) for path in (json, csv)].count(STDOUT) > 1:
        raise ConfigError("--json - and --csv -: only one of them can go to stdout; name a file")
    if str(sheet) == STDOUT:
        raise ConfigError("--sheet -: a picture does not go to stdout; name a file")
    with console(stderr=STDOUT in (str(json), str(csv))) as screen:
        from encodercheck.cli.live import open_encoder
        from encodercheck.images.source import PART

        encoder = open_encoder(
            screen,
            model,
            arch=arch,
            image_size=image_size,
            mean=mean,
            std=std,
            tower=tower,
            device=device.value,
            at_once=min(PART, clean_images),
        )
        if max_memory is not None:
            encoder.limit_memory(max_memory)
        from encodercheck.methods.dede import Settings

        settings = Settings(decoder.value, patch, *masks, sees.value, score.value, seed=seed)
        prepared, found = _run(
            screen,
            encoder,
            images,
            top=top,
            clean=clean,
            clean_images=clean_images,
            settings=settings,
            rate=rate,
            sigmas=sigmas,
            fresh=fresh,
        )
        _show(screen, found)
    _write(prepared, found, json, csv, sheet)
    raise typer.Exit(found.exit_code)


def _model_and_images(
    places: list[str], arch: str | None, tower: str | None
) -> tuple[str | None, Path]:
    if len(places) == 2:
        from encodercheck.cli.scan import refuse_early

        refuse_early(places[0], arch, tower)
        return places[0], Path(places[1])
    if len(places) == 1 and arch is not None:
        return None, Path(places[0])
    raise ConfigError(
        "samples takes a model and a folder of images: encodercheck samples MODEL IMAGES, or "
        "encodercheck samples IMAGES --arch package.module:callable for a black box"
    )


def _masks(text: str) -> tuple[float, float]:
    try:
        train, test = (float(part) for part in text.split(","))
    except ValueError:
        train = test = -1.0
    if not (0 < train < 1 and 0 < test < 1):
        raise ConfigError(f"--mask {text!r}: write two parts between 0 and 1, as 0.9,0.99")
    return train, test


def _run(
    screen: Console, encoder: Encoder, images: Path, *, top: int, **settings: Any
) -> tuple[Screen, Samples]:
    """Fit and score, with bars on a terminal."""
    from encodercheck import screening
    from encodercheck.cli.live import bars

    with bars(screen) as progress:
        task = progress.add_task("learning to reconstruct", total=None, note="")

        def move(step: int, total: int, note: str = "") -> None:
            progress.update(task, completed=step, total=total, note=note)

        try:
            prepared = screening.prepare(encoder, images, progress=move, **settings)
        except CheckInconclusive as error:
            raise EncoderCheckError(f"{encoder.provenance.path}: {error}") from error
        prepared.ledger.hold()
        progress.reset(task, description="screening", total=None)
        return prepared, prepared.run(top=top, progress=move)


def _show(screen: Console, found: Samples) -> None:
    from encodercheck.render import samples as render
    from encodercheck.render.console import printable

    screen.print(f"{printable(found.model['path'])}  ·  {printable(found.folder)}", style="bold")
    screen.print(f"  decoder trained on {printable(found.clean)} images\n", style="dim")
    if found.worst:
        screen.print(render.table(found))
        screen.print()
    screen.print(render.verdict(found))


def _write(
    prepared: Screen, found: Samples, json: Path | None, csv: Path | None, sheet: Path | None
) -> None:
    from encodercheck.cache import atomic_write_bytes
    from encodercheck.render import samples as render

    if json is not None:
        _put(json, jsonlib.dumps(found.to_dict(), indent=2) + "\n")
    if csv is not None:
        text = io.StringIO()
        render.write_csv(prepared.samples(), text)
        _put(csv, text.getvalue())
    if sheet is not None:
        buffer = io.BytesIO()
        render.sheet(prepared.pictures(found, WORST_SHOWN)).save(buffer, format="PNG")
        atomic_write_bytes(sheet, buffer.getvalue())


def _put(path: Path, text: str) -> None:
    from encodercheck.cache import atomic_write_bytes

    # File names that are not text come out as the bytes that they are.
    data = text.encode(errors="surrogateescape")
    if str(path) == STDOUT:
        typer.echo(data, nl=False)
    else:
        atomic_write_bytes(path, data)
