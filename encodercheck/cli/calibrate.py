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
    checks: options.Checks = None,
    profile: options.Profile = options.ProfileName.standard,
    images: options.Images = None,
    arch: options.Arch = None,
    tower: options.Tower = None,
    device: options.Device = options.DeviceName.auto,
    seed: options.Seed = 0,
    config: configured.ConfigFile = None,
    no_config: configured.NoConfig = False,
) -> None:
    """Measure clean encoders, for `scan --null FILE` to compare with. Exit code 2: nothing written.

    Every check runs on every encoder, and FILE keeps what it measured. Three encoders of an
    architecture are the least that a scan of that architecture can go by; five or more are better.
    """
    if str(out) == STDOUT:
        raise ConfigError("--out -: a null is a file; name one")
    require_writable(out)
    known = _known(out, profile.value, images) if append else None
    for model in models:
        refuse_early(model, arch, tower)
    with console() as screen:
        measured = [
            _measure(
                screen,
                model,
                checks=checks or [],
                profile=profile.value,
                images=images,
                arch=arch,
                tower=tower,
                device=device.value,
                seed=seed,
            )
            for model in models
        ]
        nulls = _together(known, measured)
        nulls.write(out)
        screen.print(f"{out}: {_counted(len(nulls.encoders), 'clean encoder')}")


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
    kind = source.kind(images)
    if nulls.encoders and (nulls.profile, nulls.images) != (profile, kind):
        raise ConfigError(
            f"{out}: has profile {nulls.profile} and {nulls.images} images, not {profile} and "
            f"{kind}; measure alike, or name another file"
        )
    return nulls


def _measure(screen: Console, model: str, *, checks: list[Path], **options: Any) -> CleanEncoder:
    """Run the suite on one encoder and print a line on it.

    Raises:
        EncoderCheckError: it cannot be loaded, a check ended with an error, or none measured.
    """
    from encodercheck import scanning
    from encodercheck.cli.live import Building, measuring
    from encodercheck.nulls import CleanEncoder
    from encodercheck.render.console import printable

    started = time.monotonic()
    with Building(screen, model) as building:
        state = scanning.prepare(model, building=building, **options)
    state.calibrating = True
    with measuring(screen) as listener:
        report = scanning.run(state, checks=checks, listener=listener, started=started)
    encoder = CleanEncoder.of(report, name=_name(model))
    _require_values(model, report, encoder)
    facts = [
        printable(encoder.architecture),
        f"{encoder.image_size} px",
        _counted(len(encoder.values), "value"),
        f"{report.seconds:.1f} s",
    ]
    screen.print(f"{printable(model)}  {' · '.join(facts)}")
    _warn(screen, model, report)
    return encoder


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

    first = measured[0]
    nulls = replace(known or Nulls(), profile=first.profile, images=first.images)
    for encoder in measured:
        nulls = nulls.merged(replace(nulls, encoders=(encoder,)))
    return replace(nulls, versions=versions())


def _name(model: str) -> str:
    """Return the model's name: the folders that a file lies in are nobody else's business."""
    return Path(model).absolute().name if Path(model).exists() else model


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
