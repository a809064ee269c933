"""``encodercheck scan`` of many models: a line for each as it ends, and one table at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from encodercheck.cli.zoo_options import Many
from encodercheck.errors import ConfigError
from encodercheck.zoo import targets

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from encodercheck.report import Report
    from encodercheck.walking import Walk
    from encodercheck.zoo.judging import Judge
    from encodercheck.zoo.keys import Settings
    from encodercheck.zoo.running import Executor, Run

# A line on a pipe is as long as it is.
PIPE_WIDTH = 100_000


def named(
    models: list[str] | None, listed: str | None, walked: Walk | None = None
) -> list[str] | None:
    """Return the models that are named, in whichever way; None where none is.

    ``walked`` is asked afterwards what was passed over.

    Raises:
        ConfigError: a pattern matches nothing, or the list is unusable.
    """
    if not models and listed is None:
        return None
    names = [*(models or []), *(targets.read_list(listed) if listed else [])]
    return targets.expand(names, walked)


def scan_many(
    screen: Console,
    models: list[str],
    many: Many,
    settings: Settings,
    judge: Judge,
    *,
    artifacts: Sequence[Path] | None,
    max_memory: int | None,
    holding: bool,
) -> tuple[list[Report], int | None]:
    """Scan models; return the reports, where ``holding`` asks for them, and the exit code.

    There is none where the user has stopped the run; models that it did not come to have a report
    that says so.

    Raises:
        EncoderCheckError: an option is unusable, or results cannot be written.
    """
    started = time.monotonic()
    places = dict(zip(models, artifacts or (), strict=artifacts is not None))
    count = len(models)
    if many.shard is not None:
        models = targets.shard(models, *targets.parse_shard(many.shard))
        if not models:
            if many.out is not None:
                from encodercheck.zoo.keeping import Keeper

                Keeper(many.out)
            from encodercheck.render.words import counted

            screen.print(
                f"shard {many.shard}: no model is in it, of {counted(count, 'model')} in all"
            )
            return [], 0
    executor = _executor(many)
    run = _run(screen, models, many, settings, judge, max_memory=max_memory)
    run.artifacts = [places[model] for model in models if model in places]
    run.holding = holding
    from encodercheck.cli.live_zoo import watching

    with watching(screen, len(models)) as watcher:
        run.watcher = watcher
        try:
            run.go(executor)
        except KeyboardInterrupt:
            return run.reports_so_far("the run was interrupted"), None
    _conclude(screen, run, time.monotonic() - started)
    return run.reports, run.exit_code


def _run(
    screen: Console,
    models: list[str],
    many: Many,
    settings: Settings,
    judge: Judge,
    *,
    max_memory: int | None,
) -> Run:
    """Find out what results rest on, and what is known already."""
    from encodercheck.zoo.keeping import Keeper

    keeper = None if many.out is None else Keeper(many.out)
    from encodercheck.encoder import pick_device
    from encodercheck.zoo import keys
    from encodercheck.zoo.claims import Claims
    from encodercheck.zoo.measuring import Work
    from encodercheck.zoo.running import Run

    if many.cluster is None:
        # Before it is said of every model.
        pick_device(settings.device)
    shared = keeper if settings.reusable else None
    work = Work(
        settings=settings,
        ground=keys.ground(settings),
        known=frozenset() if shared is None or many.fresh else shared.known,
        max_memory=max_memory,
        timeout=many.timeout,
    )
    claims = None if shared is None else Claims(shared.folder, work.ground)
    return Run(models, work, judge, keeper=keeper, claims=claims)


def _executor(many: Many) -> Executor:
    if many.cluster is not None:
        if many.jobs is not None:
            raise ConfigError("--jobs and --cluster exclude each other; choose one")
        from encodercheck.zoo.cluster import Needs, cluster

        return cluster(many.cluster, Needs(many.cpus, many.gpus))
    if many.cpus is not None or many.gpus is not None:
        raise ConfigError("--cpus-per-model and --gpus-per-model are for --cluster; name one")
    if many.jobs is None and many.timeout is None:
        from encodercheck.zoo.running import here

        return here
    from encodercheck.zoo.processes import processes

    # What does not stop by itself can only be ended with its process.
    return partial(processes, at_once=many.jobs or 1)


def _conclude(screen: Console, run: Run, seconds: float) -> None:
    from encodercheck.render import summary

    rows = [run.rows[number] for number in sorted(run.rows)]
    screen.print()
    show(screen, summary.table(rows), summary.left_out(rows))
    screen.print(summary.totals(rows, run.exit_code, seconds))


def show(screen: Console, table: Table, omitted: str) -> None:
    """Show the table of many models, and what it leaves out."""
    if not screen.is_terminal:
        screen.width = PIPE_WIDTH
    screen.print(table)
    if omitted:
        screen.print(omitted, style="dim")
    screen.print()
