"""``encodercheck verify``: the checks under test, against fixtures whose backdoors are known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from encodercheck.cli import completion, configured, options
from encodercheck.cli.output import STDOUT, console, require_writable

if TYPE_CHECKING:
    from rich.console import Console

    from encodercheck.verify.fixture_scan import Settings
    from encodercheck.verify.verification import Verification

# A line on a pipe is as long as it is.
PIPE_WIDTH = 100_000


def command(
    fixtures: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[@SEED][,...]",
            help="The fixtures, patterns such as bad* too (default: all of `fixtures list`).",
            show_default=False,
            autocompletion=completion.fixtures,
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Seeds 0 to N-1 of each where no @SEED is given."),
    ] = 1,
    checks: options.Checks = None,
    keyword: options.Keyword = "",
    profile: options.Profile = options.ProfileName.standard,
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    null: options.Null = None,
    config: configured.ConfigFile = None,
    no_config: configured.NoConfig = False,
    jobs: Annotated[int, typer.Option(metavar="N", min=1, help="Fixtures scanned at a time.")] = 1,
    fresh: Annotated[
        bool, typer.Option("--fresh", "--no-cache", help="Measure again what earlier runs have.")
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option("--json", metavar="F", help="Write the result as JSON; - is stdout."),
    ] = None,
) -> None:
    """Run every check on every fixture, clean and poisoned, and say how good the checks are.

    A check has to fail on what its marker declares, as catches=["bad*"], and on nothing clean.

    Fixtures are built on first use. An interrupted run goes on.

    Exit code 0: all do what they declare; 1: one missed, or fired on a clean one; 2: no verdict.
    """
    require_writable(json)
    names = [name for text in fixtures or [] for name in text.split(",")]
    with console(stderr=str(json) == STDOUT) as screen:
        from encodercheck.verify.fixture_scan import Settings

        settings = Settings(
            tuple(checks or []), keyword or None, profile.value, seed, device.value, null
        )
        found = _verify(screen, names, seeds, settings, jobs=jobs, fresh=fresh)
        _show(screen, found)
    if json is not None:
        _write(found, json)
    raise typer.Exit(found.exit_code)


def _verify(
    screen: Console, names: list[str], seeds: int, settings: Settings, **options: Any
) -> Verification:
    from encodercheck.verify.subjects import choose

    # Before anything is imported that takes seconds.
    subjects = choose(names, seeds=seeds)
    from encodercheck.cli.live_verify import watching
    from encodercheck.verify import verifying

    with watching(screen) as watcher:
        return verifying.verify(subjects, settings, watcher=watcher, **options)


def _show(screen: Console, found: Verification) -> None:
    from encodercheck.render import verify as render

    if not screen.is_terminal:
        screen.width = PIPE_WIDTH
    screen.print()
    for table in render.matrix(found, screen.width):
        screen.print(table)
        screen.print()
    screen.print(render.LEGEND, style="dim")
    screen.print()
    screen.print(render.judgements(found))
    screen.print()
    for line in render.faults(found):
        screen.print(line)
    screen.print(render.verdict(found))


def _write(found: Verification, path: Path) -> None:
    from encodercheck.cache import atomic_write_text
    from encodercheck.render import verify as render

    if str(path) == STDOUT:
        typer.echo(render.json(found), nl=False)
    else:
        atomic_write_text(path, render.json(found))
