"""Commands that are configured by a file too: ``--config``, ``--no-config``, and what follows.

What a file says becomes the defaults of the command's options, by the framework's own means: it
puts the command line first, then the environment, then these, then the defaults in the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from encodercheck.config import Config, find, read
from encodercheck.config.keys import KEYS
from encodercheck.config.rules import Rules, overlay, require_limit
from encodercheck.errors import ConfigError

# Tables are merged or taken as they are; there are no options for them.
TABLES = ("limits", "severity", "waivers")
ENVIRONMENT = "ENCODERCHECK_CONFIG"


def _take(ctx: typer.Context, path: Path | None) -> Path | None:
    """Read the file before the other options, whose defaults it has."""
    if ctx.resilient_parsing:
        return path
    if ctx.params.get("no_config"):
        # Typed, it beats the environment.
        if path is not None and _typed(ctx, "config"):
            raise ConfigError("--config and --no-config exclude each other; choose one")
        ctx.obj = Config()
        return None
    ctx.obj = find() if path is None else read(path)
    ctx.default_map = defaults(ctx.obj)
    return path


def _leave(ctx: typer.Context, no_config: bool) -> bool:
    """Refuse ``--no-config`` after ``--config``."""
    if no_config and ctx.params.get("config") is not None:
        raise ConfigError("--config and --no-config exclude each other; choose one")
    return no_config


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="F",
        is_eager=True,
        callback=_take,
        envvar=ENVIRONMENT,
        # No brackets: help takes [tool.encodercheck] for markup and leaves it out.
        help="The configuration (default: the nearest encodercheck.toml, or pyproject.toml with a "
        "table tool.encodercheck, here or above).",
    ),
]
NoConfig = Annotated[
    bool,
    typer.Option("--no-config", is_eager=True, callback=_leave, help="Read no configuration file."),
]


def defaults(config: Config) -> dict[str, Any]:
    """Return what a file says by the names of the parameters of commands."""
    return {
        KEYS[name].parameter: str(value) if isinstance(value, int | float) else value
        for name, value in config.values.items()
        if name not in TABLES
    }


def configuration(ctx: typer.Context) -> Config:
    """Return the file that the command was configured by."""
    config = ctx.obj
    assert isinstance(config, Config)
    return config


def rules(
    config: Config,
    *,
    select: Sequence[str] | None,
    ignore: Sequence[str] | None,
    limit: Sequence[str] | None,
    fail_on: str | None,
    fail_fast: bool,
) -> Rules:
    """Return the rules of a file and of the options ``--select`` to ``--fail-fast``.

    Raises:
        ConfigError: an option is malformed.
    """
    return Rules(
        select=tuple(select or ()),
        ignore=tuple(ignore or ()),
        limits=overlay(config.limits, limits(limit)),
        severities=config.severities,
        fail_on=fail_on,
        waivers=config.waivers,
        fail_fast=fail_fast,
        source=config.shown,
    )


def limits(texts: Sequence[str] | None) -> dict[str, float]:
    """Return the limits given as ``EC202.gain=0.9``.

    Raises:
        ConfigError: one is malformed, or one is given twice.
    """
    found: dict[str, float] = {}
    for text in texts or ():
        key, _, number = text.rpartition("=")
        try:
            limit = float(number)
        except ValueError:
            limit = None
        if limit is None or not key:
            raise ConfigError(f"--limit {text!r}: write CHECK.NAME=NUMBER, as EC202.gain=0.9")
        require_limit(key, limit)
        if key in found:
            raise ConfigError(f"--limit {key}: is given twice; leave one out")
        found[key] = limit
    return found


def _typed(ctx: typer.Context, parameter: str) -> bool:
    return source(ctx, parameter) == "COMMANDLINE"


def source(ctx: typer.Context, parameter: str) -> str:
    """Return where a parameter's value comes from, by the framework's name for it."""
    found = ctx.get_parameter_source(parameter)
    return "DEFAULT" if found is None else found.name
