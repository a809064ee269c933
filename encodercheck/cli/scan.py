"""``encodercheck scan``: run the suite on models."""

from __future__ import annotations

import os
import re
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from encodercheck.baseline import Baseline
from encodercheck.cli import completion, configured, formats, options
from encodercheck.cli.formats import Outputs
from encodercheck.cli.output import console, require_writable_folder
from encodercheck.errors import EncoderCheckError
from encodercheck.rules import Rules
from encodercheck.weights.metadata import callable_spec

if TYPE_CHECKING:
    from rich.console import Console

    from encodercheck.report import Report


def command(
    ctx: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL...]",
            help=".safetensors files, model folders, hf://ORG/NAME, fixture:NAME; none for the "
            "black box that --arch names as package.module:callable.",
            show_default=False,
            autocompletion=completion.models,
        ),
    ] = None,
    config: configured.ConfigFile = None,
    no_config: configured.NoConfig = False,
    images: options.Images = None,
    checks: options.Checks = None,
    keyword: options.Keyword = "",
    select: options.Select = None,
    ignore: options.Ignore = None,
    limit: options.Limit = None,
    fail_on: options.FailOn = None,
    profile: options.Profile = options.ProfileName.standard,
    arch: options.Arch = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    device: options.Device = options.DeviceName.auto,
    seed: options.Seed = 0,
    null: options.Null = None,
    max_memory: options.MaxMemory = None,
    json: formats.Json = None,
    junit: formats.Junit = None,
    sarif: formats.Sarif = None,
    markdown: formats.Markdown = None,
    html: formats.Html = None,
    badge: formats.Badge = None,
    artifacts: options.Artifacts = options.ARTIFACTS,
    strict: options.Strict = False,
    baseline: options.Baseline = None,
) -> None:
    """Scan encoders for backdoors. Exit code 0: nothing found; 1: a check failed; 2: no verdict."""
    outputs = Outputs(
        json=json, junit=junit, sarif=sarif, markdown=markdown, html=html, badge=badge
    )
    outputs.require_writable()
    require_writable_folder(_existing_parent(artifacts))
    grade = fail_on and fail_on.value
    rules = configured.rules(
        configured.configuration(ctx), select=select, ignore=ignore, limit=limit, fail_on=grade
    )
    earlier = None if baseline is None else Baseline.read(baseline)
    _require_known(rules, checks or [])
    with console(stderr=outputs.to_stdout) as screen:
        reports, faults = _scan_all(
            screen,
            models,
            artifacts,
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
            rules=rules,
            baseline=earlier,
        )
    outputs.write(reports)
    if len(reports) == 1 and faults:
        raise faults[0]
    from encodercheck.render.words import overall_exit_code

    raise typer.Exit(overall_exit_code(reports))


def _scan_all(
    screen: Console, models: list[str] | None, artifacts: Path, **options: Any
) -> tuple[list[Report], list[EncoderCheckError]]:
    """Scan one model after the other; what cannot be scanned has a report too, that says why."""
    from encodercheck.render import console as render
    from encodercheck.report import Report

    names = models or [callable_spec(options["arch"])]
    reports: list[Report] = []
    faults: list[EncoderCheckError] = []
    for name, folder in zip(names, _folder_names(names), strict=True):
        started = time.monotonic()
        try:
            model = name if models else None
            report = _scan_one(screen, model, artifacts=artifacts / folder, **options)
        except EncoderCheckError as error:
            faults.append(error)
            told = {key: options[key] for key in ("seed", "device", "profile", "strict")}
            seconds = time.monotonic() - started
            report = Report.unreadable(name, str(error), seconds=seconds, **told)
            # Alone, it is the last line on stderr.
            if len(names) > 1:
                screen.print(render.whole(report))
                screen.print()
        reports.append(report)
    return reports, faults


def _scan_one(
    screen: Console,
    model: str | None,
    *,
    checks: list[Path],
    keyword: str | None,
    strict: bool,
    rules: Rules,
    baseline: Baseline | None,
    **options: Any,
) -> Report:
    """Load, show the header, run the suite, show the verdict."""
    started = time.monotonic()
    if model is not None:
        refuse_early(model, options["arch"])
    with screen.status("loading") if screen.is_terminal else nullcontext():
        from encodercheck import scanning
        from encodercheck.cli.live import Building, header, listening
    with Building(screen, model or "") as building:
        state = scanning.prepare(model, building=building, **options)
    screen.print(header(state, rules))
    screen.print()
    with listening(screen) as listener:
        report = scanning.run(
            state,
            checks=checks,
            keyword=keyword,
            strict=strict,
            rules=rules,
            listener=listener,
            started=started,
        )
    if baseline is not None:
        report = replace(report, baseline=baseline.compare(report))
    _conclude(screen, report, rules)
    return report


def _conclude(screen: Console, report: Report, rules: Rules) -> None:
    """Show what has changed, the verdict, and which waivers have had their time."""
    from encodercheck.render import changes, console
    from encodercheck.waivers import unneeded

    screen.print()
    if report.baseline is not None:
        screen.print(changes.changes(report.baseline))
        screen.print()
    screen.print(console.verdict(report))
    for waiver in unneeded(rules.waivers, report.findings, sha256=report.model["sha256"]):
        screen.print(console.unneeded(waiver), style="yellow")
    screen.print()


def _require_known(rules: Rules, checks: list[Path]) -> None:
    """Demand that the rules are about checks that there are, before a model is loaded for them.

    Raises:
        ConfigError: they are not, or a check file is unusable.
    """
    if rules.name_checks:
        from encodercheck.harness.runner import list_checks, suite

        rules.require_known([info.id for info in list_checks(suite(checks))])


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
