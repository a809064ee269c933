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

from encodercheck import room
from encodercheck.cache import for_any_system
from encodercheck.cli import completion, configured, formats, options, zoo_options
from encodercheck.cli.ending import say
from encodercheck.cli.formats import Outputs
from encodercheck.cli.output import console, require_writable_folder
from encodercheck.cli.resumable import Resumable
from encodercheck.cli.scan_many import named, scan_many
from encodercheck.cli.supervising import tell_outputs
from encodercheck.cli.zoo_options import Many
from encodercheck.config.rules import Rules
from encodercheck.errors import ConfigError, EncoderCheckError, LoadError, OutputError
from encodercheck.known.baseline import Baseline
from encodercheck.weights.metadata import callable_spec
from encodercheck.zoo import targets
from encodercheck.zoo.judging import Judge

if TYPE_CHECKING:
    from rich.console import Console

    from encodercheck.report import Report
    from encodercheck.walking import Walk


def command(
    ctx: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL...]",
            help=".safetensors files, model folders or folders of them, patterns, hf://ORG/NAME, "
            "fixture:NAME; none for the black box that --arch names as package.module:callable.",
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
    fail_fast: options.FailFast = False,
    profile: options.Profile = options.ProfileName.standard,
    arch: options.Arch = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    tower: options.Tower = None,
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
    listed: zoo_options.Listed = None,
    out: zoo_options.Out = None,
    resume: options.Resume = False,
    no_cache: zoo_options.NoCache = False,
    shard: zoo_options.Shard = None,
    jobs: zoo_options.Jobs = None,
    timeout: zoo_options.Timeout = None,
    cluster: zoo_options.Cluster = None,
    cpus_per_model: zoo_options.CpusPerModel = None,
    gpus_per_model: zoo_options.GpusPerModel = None,
) -> None:
    """Scan encoders for backdoors. Exit code 0: nothing found; 1: a check failed; 2: no verdict."""
    outputs = Outputs(
        json=json, junit=junit, sarif=sarif, markdown=markdown, html=html, badge=badge
    )
    outputs.require_writable()
    place = _place_for(ctx, artifacts)
    grade = fail_on and fail_on.value
    rules = configured.rules(
        configured.configuration(ctx),
        select=select,
        ignore=ignore,
        limit=limit,
        fail_on=grade,
        fail_fast=fail_fast,
    )
    earlier = None if baseline is None else Baseline.read(baseline)
    scanned: dict[str, Any] = {
        "arch": arch,
        "image_size": image_size,
        "mean": mean,
        "std": std,
        "tower": tower,
        "images": images,
        "profile": profile.value,
        "seed": seed,
        "device": device.value,
        "null": null,
    }
    walked = targets.walk()
    names = named(models, listed, walked)
    _say_passed_over(walked)
    tell_outputs(outputs, names or [arch or ""])
    _require_known(rules, checks or [])
    many = Many(out, no_cache, shard, jobs, timeout, cluster, cpus_per_model, gpus_per_model)
    if many.asked or (names is not None and len(names) > 1):
        if resume:
            raise ConfigError("--resume is for one model; with --out results are kept as they come")
        raise typer.Exit(
            _scan_many(
                names,
                many,
                outputs,
                Judge(rules, strict, earlier),
                checks=tuple(checks or ()),
                keyword=keyword or None,
                artifacts=place,
                max_memory=max_memory,
                **scanned,
            )
        )
    with console(stderr=outputs.to_stdout) as screen:
        report, fault = _scan_alone(
            screen,
            names[0] if names else None,
            place,
            checks=checks or [],
            keyword=keyword or None,
            strict=strict,
            max_memory=max_memory,
            rules=rules,
            baseline=earlier,
            resume=resume,
            **scanned,
        )
    outputs.write([report])
    if fault is not None:
        raise fault
    raise typer.Exit(report.exit_code)


def _say_passed_over(walked: Walk) -> None:
    """Say which files and folders a pattern or a folder of models does not stand for."""
    if passed_over := walked.skipped():
        from encodercheck.render.console import printable

        say(f"passed over: {printable(passed_over)}; name what is to be scanned")


def _scan_many(
    models: list[str] | None,
    many: Many,
    outputs: Outputs,
    judge: Judge,
    *,
    artifacts: Path | None,
    max_memory: int | None,
    **scanned: Any,
) -> int:
    """Scan models, write the reports that are asked for, and return the exit code.

    Raises:
        EncoderCheckError: an option is unusable, or results cannot be written.
    """
    if models is None:
        raise ConfigError(
            "no MODEL: --out, --shard, --jobs, --timeout and --cluster are for models; name some, "
            "or scan a black box without them"
        )
    from encodercheck.zoo.keys import Settings

    with console(stderr=outputs.to_stdout) as screen:
        reports, code = scan_many(
            screen,
            models,
            many,
            Settings(**scanned, rules=judge.measuring),
            judge,
            artifacts=[artifacts / n for n in _folder_names(models)] if artifacts else None,
            max_memory=max_memory,
            holding=outputs.any,
        )
    outputs.write(reports)
    if code is None:
        raise KeyboardInterrupt
    return code


def _scan_alone(
    screen: Console, model: str | None, artifacts: Path | None, **options: Any
) -> tuple[Report, BaseException | None]:
    """Scan one model; if it cannot be scanned, return why, and a report that says so too.

    A scan that was interrupted has a report of what was found until then.
    """
    from encodercheck.report import Report

    name = model or callable_spec(options["arch"])
    (folder,) = _folder_names([name])
    started = time.monotonic()
    fault: BaseException
    try:
        place = artifacts / folder if artifacts else None
        return _scan_one(screen, model, artifacts=place, **options), None
    except EncoderCheckError as error:
        fault = error
    except KeyboardInterrupt as error:
        found: Report | None = getattr(error, "report", None)
        if found is not None:
            return found, error
        fault = KeyboardInterrupt("the scan was interrupted")
    except (MemoryError, RuntimeError) as error:
        if not room.ran_out(error):
            raise
        fault = LoadError(f"{name}: memory ran out in the scan; {room.WAY_OUT}")
    told = {key: options[key] for key in ("seed", "device", "profile", "strict")}
    seconds = time.monotonic() - started
    return Report.unreadable(name, str(fault), seconds=seconds, **told), fault


def _scan_one(
    screen: Console,
    model: str | None,
    *,
    checks: list[Path],
    keyword: str | None,
    strict: bool,
    rules: Rules,
    baseline: Baseline | None,
    resume: bool,
    max_memory: int | None,
    **options: Any,
) -> Report:
    """Load, show the header, run the suite, show the verdict."""
    started = time.monotonic()
    if model is not None:
        refuse_early(model, options["arch"], options["tower"])
    with screen.status("loading") if screen.is_terminal else nullcontext():
        from encodercheck import scanning
        from encodercheck.cli.live import Building, header, listening
    with Building(screen, model or "") as building:
        place = options.pop("artifacts")
        state = scanning.prepare(
            model, building=building, artifacts=place, max_memory=max_memory, **options
        )
    screen.print(header(state, rules))
    screen.print()
    kept = Resumable(model, checks, keyword, rules, options, state)
    earlier = kept.take() if resume else None
    try:
        with listening(screen) as listener:
            report = scanning.run(
                state,
                checks=checks,
                keyword=keyword,
                strict=strict,
                rules=rules,
                listener=listener,
                started=started,
                earlier=earlier,
            )
    except scanning.ScanInterrupted as error:
        kept.keep(error.report)
        raise
    if earlier is not None:
        kept.drop()
    if baseline is not None:
        report = replace(report, baseline=baseline.compare(report))
    _conclude(screen, report, rules)
    return report


def _conclude(screen: Console, report: Report, rules: Rules) -> None:
    """Show what has changed, the verdict, and which waivers have had their time."""
    from encodercheck.known.waivers import unneeded
    from encodercheck.render import changes, console

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


def refuse_early(model: str, arch: str | None, tower: str | None = None) -> None:
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

        refuse(checkpoint, tower)


def _folder_names(models: list[str]) -> list[str]:
    """Return a folder name for each model's artifacts: its own name, tamed; namesakes numbered."""
    names: list[str] = []
    for model in models:
        stem = Path(os.path.normpath(model)).name
        stem = stem.removeprefix("fixture:").removesuffix(".safetensors")
        name = for_any_system(re.sub(r"[^A-Za-z0-9._@-]+", "-", stem).strip(".") or "model")
        # There are file systems that do not tell "A" from "a".
        taken = [other.lower() for other in names]
        same = name.lower()
        namesakes = sum(other == same or other.startswith(f"{same}~") for other in taken)
        names.append(f"{name}~{namesakes + 1}" if namesakes else name)
    return names


def _place_for(ctx: typer.Context, artifacts: Path) -> Path | None:
    """Return where witnesses go; None where the default place cannot be written to.

    Raises:
        OutputError: the place that was chosen cannot be written to.
    """
    try:
        require_writable_folder(_existing_parent(artifacts))
    except OutputError as error:
        if configured.source(ctx, "artifacts") != "DEFAULT":
            raise
        fault = str(error).partition(";")[0]
        say(f"{fault}; witnesses are not kept; name a folder for them with --artifacts")
        return None
    return artifacts


def _existing_parent(path: Path) -> Path:
    """Return the nearest folder that exists: nothing is created before there is a witness."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
