"""``encodercheck config``: what a scan would go by, and where each value comes from."""

from __future__ import annotations

import json as jsonlib
import math
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from encodercheck.cli import configured, options
from encodercheck.config import Config
from encodercheck.config.keys import KEYS
from encodercheck.config.rules import Rules

SCHEMA = "encodercheck.config/1"
TYPED = "command line"


def command(
    ctx: typer.Context,
    config: configured.ConfigFile = None,
    no_config: configured.NoConfig = False,
    images: options.Images = None,
    profile: options.Profile = options.ProfileName.standard,
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    strict: options.Strict = False,
    checks: options.Checks = None,
    select: options.Select = None,
    ignore: options.Ignore = None,
    null: options.Null = None,
    max_memory: options.MaxMemory = None,
    artifacts: options.Artifacts = options.ARTIFACTS,
    fail_on: options.FailOn = None,
    fail_fast: options.FailFast = False,
    limit: options.Limit = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a scan in this folder would go by, and where each value comes from.

    The command line comes before the environment, that before the file, that before the defaults.
    """
    file = configured.configuration(ctx)
    rules = configured.rules(
        file,
        select=select,
        ignore=ignore,
        limit=limit,
        fail_on=fail_on and fail_on.value,
        fail_fast=fail_fast,
    )
    found = effective(ctx, file, rules, typed=configured.limits(limit))
    if json:
        typer.echo(jsonlib.dumps(found, indent=2))
    else:
        _print(found)


def effective(
    ctx: typer.Context, file: Config, rules: Rules, *, typed: dict[str, float]
) -> dict[str, Any]:
    """Return the values that hold, each with where it comes from, ready for JSON."""
    values = {
        name: {"value": _plain(ctx.params[key.parameter]), "from": _from(ctx, file, name)}
        for name, key in KEYS.items()
        if key.parameter in ctx.params
    }
    limits = {
        key: {"value": _plain(limit), "from": TYPED if key in typed else file.shown}
        for key, limit in rules.limits.items()
    }
    severities = {
        id_: {"value": severity, "from": file.shown} for id_, severity in rules.severities.items()
    }
    waivers = [
        {**waiver.to_dict(), "expired": waiver.expires < date.today(), "from": file.shown}
        for waiver in rules.waivers
    ]
    return {
        "schema": SCHEMA,
        "file": file.shown or None,
        "values": values,
        "limits": limits,
        "severity": severities,
        "waivers": waivers,
    }


def _from(ctx: typer.Context, file: Config, name: str) -> str:
    key = KEYS[name]
    return {
        "COMMANDLINE": TYPED,
        "ENVIRONMENT": key.environment or "",
        "DEFAULT_MAP": file.shown,
    }.get(configured.source(ctx, key.parameter), "default")


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return getattr(value, "value", value)


def _print(found: dict[str, Any]) -> None:
    from encodercheck.cli.output import console
    from encodercheck.render.console import printable

    rows = [("file", found["file"] or "none", "")]
    rows += [(name, _shown(entry["value"]), entry["from"]) for name, entry in _entries(found)]
    for waiver in found["waivers"]:
        state = "expired on" if waiver["expired"] else "until"
        what = f"{waiver['check']} on {waiver['model'][:15]}... {state} {waiver['expires']}"
        rows.append(("waiver", f"{what}: {waiver['reason']}", waiver["from"]))
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    with console() as screen:
        for name, value, origin in rows:
            line = f"{name:<{first}}  {value:<{min(second, 60)}}  {origin}"
            screen.print(printable(line.rstrip()))


def _entries(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        *found["values"].items(),
        *((f"limit {key}", entry) for key, entry in found["limits"].items()),
        *((f"severity {id_}", entry) for id_, entry in found["severity"].items()),
    ]


def _shown(value: Any) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
