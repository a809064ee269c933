"""``encodercheck scan``: run the suite on models."""

from __future__ import annotations

import os
import re
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from encodercheck.cli import options
from encodercheck.cli.output import STDOUT, console, require_writable, require_writable_folder
from encodercheck.errors import EncoderCheckError
from encodercheck.weights.metadata import callable_spec

if TYPE_CHECKING:
    from rich.console import Console

    from encodercheck.report import Report


def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL...]",
            help=".safetensors files, model folders, hf://ORG/NAME, fixture:NAME; none for the "
            "black box that --arch names as package.module:callable.",
            show_default=False,
        ),
    ] = None,
    images: options.Images = None,
    checks: options.Checks = None,
    keyword: options.Keyword = "",
    profile: options.Profile = options.ProfileName.standard,
    arch: options.Arch = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    device: options.Device = options.DeviceName.auto,
    seed: options.Seed = 0,
    null: options.Null = None,
    max_memory: options.MaxMemory = None,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="F", help="Write the report as JSON; - is stdout."),
    ] = None,
    artifacts: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the witnesses of failed checks go.")
    ] = Path("encodercheck-artifacts"),
    strict: Annotated[
        bool, typer.Option("--strict", help="An inconclusive check is exit code 2.")
    ] = False,
) -> None:
    """Scan encoders for backdoors. Exit code 0: nothing found; 1: a check failed; 2: no verdict."""
    targets: list[str | None] = [*models] if models else [None]
    names = models or [callable_spec(arch)]
    require_writable(json)
    require_writable_folder(_existing_parent(artifacts))
    reports: list[Report] = []
    codes: list[int] = []
    with console(stderr=str(json) == STDOUT) as screen:
        for model, folder in zip(targets, _folder_names(names), strict=True):
            try:
                report = _scan_one(
                    screen,
                    model,
                    artifacts=artifacts / folder,
                    checks=checks or [],
                    keyword=keyword or None,
                    strict=strict,
                    arch=arch,
                    image_size=image_size,
                    mean=mean,
                    std=std,
                    images=images,
                    profile=profile.value,
                    seed=seed,
                    device=device.value,
                    null=null,
                    max_memory=max_memory,
                )
            except EncoderCheckError as error:
                if len(targets) == 1:
                    raise
                screen.print(f"{model}: {error}\n", style="bold red")
                codes.append(2)
                continue
            reports.append(report)
            codes.append(report.exit_code)
    if json is not None:
        _write_json(reports, json)
    raise typer.Exit(1 if 1 in codes else max(codes))


def _scan_one(
    screen: Console,
    model: str | None,
    *,
    checks: list[Path],
    keyword: str | None,
    strict: bool,
    **options: Any,
) -> Report:
    """Load, show the header, run the suite, show the verdict."""
    started = time.monotonic()
    if model is not None:
        refuse_early(model, options["arch"])
    with screen.status("loading") if screen.is_terminal else nullcontext():
        from encodercheck import scanning
        from encodercheck.cli.live import Building, header, listening
        from encodercheck.render import console as render
    with Building(screen, model or "") as building:
        state = scanning.prepare(model, building=building, **options)
    screen.print(header(state))
    screen.print()
    with listening(screen) as listener:
        report = scanning.run(
            state, checks=checks, keyword=keyword, strict=strict, listener=listener, started=started
        )
    screen.print()
    screen.print(render.verdict(report))
    screen.print()
    return report


def refuse_early(model: str, arch: str | None) -> None:
    """Turn away what is no model before torch is imported, which takes seconds.

    Raises:
        LoadError: the files say that this cannot be loaded.
    """
    from encodercheck.weights.files import locate
    from encodercheck.weights.hub import is_hub

    if model.startswith("fixture:") or is_hub(model):
        return
    files = locate(model)
    checkpoint = files.open()
    if arch is None and not files.configs:
        from encodercheck.weights.identify import refuse_early as refuse

        refuse(checkpoint)


def _write_json(reports: list[Report], path: Path) -> None:
    from encodercheck.cache import atomic_write_text
    from encodercheck.render import json as render

    if not reports:
        return
    if str(path) == STDOUT:
        typer.echo(render.render(reports), nl=False)
    else:
        atomic_write_text(path, render.render(reports))


def _folder_names(models: list[str]) -> list[str]:
    """Return a folder name for each model's artifacts: its own name, tamed; namesakes numbered."""
    names: list[str] = []
    for model in models:
        stem = Path(os.path.normpath(model)).name
        stem = stem.removeprefix("fixture:").removesuffix(".safetensors")
        name = re.sub(r"[^A-Za-z0-9._@-]+", "-", stem).strip(".") or "model"
        namesakes = sum(other == name or other.startswith(f"{name}~") for other in names)
        names.append(f"{name}~{namesakes + 1}" if namesakes else name)
    return names


def _existing_parent(path: Path) -> Path:
    """Return the nearest folder that exists: nothing is created before there is a witness."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
