"""``encodercheck calibrate``: measure clean encoders, for scans to compare with."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from encodercheck.cli import configured, options
from encodercheck.cli.output import STDOUT, console, require_writable
from encodercheck.cli.scan import refuse_early
from encodercheck.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from encodercheck.nulls import CleanEncoder, Nulls
    from encodercheck.report import Report


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="CLEAN...",
            help="Encoders known to be clean: files, folders, hf://ORG/NAME, fixture:NAME.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the null goes, as JSON.")],
    append: Annotated[
        bool, typer.Option("--append", help="Keep the encoders that the file already has.")
    ] = False,
    allow_failing: Annotated[
        bool,
        typer.Option(
            "--allow-failing",
            help="Keep encoders that fail a check too: you know that they are clean.",
        ),
    ] = False,
    checks: options.Checks = None,
    profile: options.Profile = options.ProfileName.standard,
    images: options.Images = None,
    arch: options.Arch = None,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    tower: options.Tower = None,
    device: options.Device = options.DeviceName.auto,
    seed: options.Seed = 0,
    config: configured.ConfigFile = None,
    no_config: configured.NoConfig = False,
) -> None:
    """Measure clean encoders, for `scan --null FILE` to compare with. Exit code 2: nothing written.

    Every check runs on every encoder, and FILE keeps what it measured. Three encoders of an
    architecture are the least that a scan of that architecture can go by; five or more are better.
    An encoder that fails a check is refused, and copies of one are counted once.
    """
    if str(out) == STDOUT:
        raise ConfigError("--out -: a null is a file; name one")
    require_writable(out)
    known = _known(out, profile.value, images) if append else None
    for model in models:
        refuse_early(model, arch, tower)
    with console() as screen:
        measured: list[CleanEncoder] = []
        for model in models:
            encoder = _measure(
                screen,
                model,
                measured,
                known,
                allow_failing=allow_failing,
                checks=checks or [],
                profile=profile.value,
                images=images,
                arch=arch,
                image_size=image_size,
                mean=mean,
                std=std,
                tower=tower,
                device=device.value,
                seed=seed,
            )
            measured += [] if encoder is None else [encoder]
        nulls = _together(known, measured)
        nulls.write(out)
        screen.print(f"{out}: {_counted(len(nulls.encoders), 'clean encoder')}")
        _say_what_is_missing(screen, nulls)


def _known(out: Path, profile: str, images: str | None) -> Nulls | None:
    """Return what is in the file to append to; None where there is no file yet.

    Raises:
        ConfigError: it is no null, or was measured in another way.
    """
    from encodercheck.images import source
    from encodercheck.nulls import Nulls

    if not out.exists():
        return None
    nulls = Nulls.read(out)
    kind, digest = source.kind(images), source.digest(images)
    alike = all(e.is_measured_on(kind, digest) for e in nulls.encoders)
    if nulls.encoders and (nulls.profile != profile or not alike):
        # A folder may hold other files than it did.
        now = "" if alike or kind != nulls.images else " as they are now"
        raise ConfigError(
            f"{out}: has profile {nulls.profile} and {nulls.images} images, not {profile} and "
            f"{kind}{now}; measure alike, or name another file"
        )
    return nulls


def _measure(
    screen: Console,
    model: str,
    measured: list[CleanEncoder],
    known: Nulls | None,
    *,
    allow_failing: bool,
    checks: list[Path],
    **options: Any,
) -> CleanEncoder | None:
    """Run the suite on one encoder and print a line on it; None for a copy of one measured already.

    The very file that is among the ``known`` is measured anew.

    Raises:
        EncoderCheckError: it cannot be loaded, a check ended with an error or, unless
            ``allow_failing``, failed, or none measured.
    """
    from encodercheck import scanning, sketch
    from encodercheck.cli.live import Building, measuring
    from encodercheck.nulls import CleanEncoder
    from encodercheck.render.console import printable

    started = time.monotonic()
    with Building(screen, model) as building:
        state = scanning.prepare(model, building=building, **options)
    state.calibrating = True
    # A reference is what the file says it is; scans of doubtful files are not measured by it.
    state.second = None
    own = sketch.of_weights(state.encoder.module)
    sha256 = state.encoder.provenance.sha256
    before = [e for e in known.encoders if e.sha256 != sha256] if known else []
    for other in (*measured, *before):
        if other.is_copy(sha256, own):
            screen.print(printable(f"{model}  a copy of {other.name}: counted once"))
            return None
    with measuring(screen) as listener:
        report = scanning.run(state, checks=checks, listener=listener, started=started)
    encoder = CleanEncoder.of(report, name=_name(model), sketch=own)
    _require_values(model, report, encoder)
    if not allow_failing:
        _require_passed(model, report)
    facts = [
        printable(encoder.architecture),
        f"{encoder.image_size} px",
        _counted(len(encoder.values), "value"),
        f"{report.seconds:.1f} s",
    ]
    screen.print(f"{printable(model)}  {' · '.join(facts)}")
    _warn(screen, model, report)
    return encoder


def _require_passed(model: str, report: Report) -> None:
    from encodercheck.render.console import printable
    from encodercheck.report import Outcome

    failed = [f.id for f in report.findings if f.outcome is Outcome.FAILED]
    if failed:
        raise ConfigError(
            f"{printable(model)}: failed {', '.join(failed)}, so that it may not be clean; leave "
            "it out, or pass --allow-failing if you know that it is; nothing was written"
        )


def _say_what_is_missing(screen: Console, nulls: Nulls) -> None:
    """Warn of architectures of which there are too few encoders, the shipped ones counted."""
    from encodercheck.methods.null import LEAST_ENCODERS
    from encodercheck.nulls import Nulls
    from encodercheck.render.console import printable

    known = Nulls.shipped().merged(nulls).encoders
    for one in {(e.architecture, e.image_size): e for e in nulls.encoders}.values():
        facts = one.architecture, one.image_size, one.structure
        count = sum(encoder.is_built_as(*facts) for encoder in known)
        if count < LEAST_ENCODERS:
            text = (
                f"{one.architecture} at {one.image_size} px: {count} of {LEAST_ENCODERS} clean "
                "encoders; with fewer, a scan goes by those of all architectures together"
            )
            screen.print(f"  warning: {printable(text)}", style="yellow")


def _require_values(model: str, report: Report, encoder: CleanEncoder) -> None:
    from encodercheck.report import Outcome

    for finding in report.findings:
        if finding.outcome is Outcome.ERROR:
            raise ConfigError(
                f"{model}: {finding.id} ended with an error ({finding.message}); mend the check, "
                "nothing was written"
            )
    if not encoder.values:
        raise ConfigError(f"{model}: no check measured anything; nothing was written")


def _warn(screen: Console, model: str, report: Report) -> None:
    """Say which checks had a clean encoder fail, or could not decide."""
    from encodercheck.render.console import printable
    from encodercheck.report import Outcome

    for finding in report.findings:
        if finding.outcome is Outcome.FAILED:
            text = f"{model} failed {finding.id}: is it clean?"
        elif finding.outcome is Outcome.INCONCLUSIVE:
            text = f"{model} left {finding.id} undecided: {finding.message}"
        else:
            continue
        screen.print(f"  warning: {printable(text)}", style="yellow")


def _together(known: Nulls | None, measured: list[CleanEncoder]) -> Nulls:
    """Return the null to write; an encoder measured anew takes its old place's values."""
    from encodercheck.nulls import Nulls
    from encodercheck.scanning import versions

    first = known.encoders[0] if known is not None and known.encoders else measured[0]
    # One folder may be spelled in several ways.
    how: dict[str, Any] = {
        "profile": first.profile,
        "images": first.images,
        "images_digest": first.images_digest,
    }
    nulls = replace(known or Nulls(), **how)
    for encoder in measured:
        nulls = nulls.merged(replace(nulls, encoders=(replace(encoder, **how),)))
    return replace(nulls, versions=versions())


def _name(model: str) -> str:
    """Return the model's name: the folders that a file lies in are left out."""
    return Path(model).absolute().name if Path(model).exists() else model


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
