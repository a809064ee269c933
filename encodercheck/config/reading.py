"""The configuration file: where it is found, and what it says.

It is ``encodercheck.toml``, or the table ``[tool.encodercheck]`` of a ``pyproject.toml``: the
nearest one in the working directory or above it, up to the root of the repository.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encodercheck.config.keys import KEYS
from encodercheck.errors import ConfigError
from encodercheck.known.waivers import ModelWaiver
from encodercheck.suggest import did_you_mean
from encodercheck.weights.header import located, os_reason, quoted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OWN = "encodercheck.toml"
PYPROJECT = "pyproject.toml"
TABLE = ("tool", "encodercheck")
# What marks the root of a repository.
ROOTS = (".git", ".hg", ".svn")
MOST_BYTES = 1_000_000
MEND = "mend it, name another file with --config, or pass --no-config"


@dataclass(frozen=True)
class Config:
    """What a file says, by key; paths work from the working directory."""

    path: Path | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The file as short as it can be read from the working directory; empty without one."""
        return "" if self.path is None else short(self.path)

    @property
    def limits(self) -> dict[str, float]:
        """The table of limits."""
        return dict(self.values.get("limits", {}))

    @property
    def severities(self) -> dict[str, str]:
        """The table of severities."""
        return dict(self.values.get("severity", {}))

    @property
    def waivers(self) -> tuple[ModelWaiver, ...]:
        """The waivers."""
        return tuple(self.values.get("waivers", ()))


def find(start: Path | None = None) -> Config:
    """Return what the nearest file says, looking from ``start`` or the working directory upwards.

    Raises:
        ConfigError: a file on the way cannot be read, is malformed, or is not to be trusted.
    """
    try:
        start = (start or Path.cwd()).absolute()
    except OSError:
        # The working directory is gone.
        return Config()
    within = any(_is_root(folder) for folder in (start, *start.parents))
    for folder in (start, *start.parents):
        for path in (folder / OWN, folder / PYPROJECT):
            if not os.path.lexists(path):
                continue
            raw = _bytes(path)
            if path.name == PYPROJECT and _table(_parsed(path, raw)) is None:
                continue
            if not within and folder != start:
                _require_own(path)
            return parse(path, raw)
        if _is_root(folder):
            break
    return Config()


def read(path: Path) -> Config:
    """Return what a file says.

    Raises:
        ConfigError: it cannot be read or is malformed, or has no table of ours.
    """
    return parse(path.absolute(), _bytes(path))


def parse(path: Path, raw: bytes) -> Config:
    """Return what the file at ``path`` says if its content is ``raw``.

    Raises:
        ConfigError: it is malformed, or has no table of ours.
    """
    content: Any = _parsed(path, raw)
    if path.name == PYPROJECT:
        content = _table(content)
        if content is None:
            raise ConfigError(f"{short(path)}: has no table [tool.encodercheck]; add one")
    if not isinstance(content, dict):
        raise ConfigError(f"{short(path)}: tool.encodercheck: expected a table; {MEND}")
    return Config(path, {name: _value(path, name, value) for name, value in content.items()})


def prefix(path: Path) -> str:
    """Return what the names of tables begin with in a file of this name."""
    return "tool.encodercheck." if path.name == PYPROJECT else ""


def short(path: Path) -> str:
    """Return a path as short as it can be read from the working directory, fit for a message."""
    try:
        return located(path.relative_to(Path.cwd()))
    except ValueError:
        return located(path)


def _value(path: Path, name: str, value: Any) -> Any:
    where = f"{short(path)}: {prefix(path)}{quoted(name)}"
    if name not in KEYS:
        raise ConfigError(f"{where}: unknown key; {did_you_mean(name, KEYS)}")
    key = KEYS[name]
    try:
        return key.read(value, path.parent)
    except ValueError as error:
        given = "" if str(error) else f", not {quoted(repr(value), 40)}"
        reason = f"; {error}" if str(error) else ""
        raise ConfigError(f"{where}: expected {key.expected}{given}{reason}") from error


def _parsed(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        content: dict[str, Any] = tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{short(path)}: is not TOML ({quoted(error, limit=200)}); {MEND}"
        ) from error
    return content


def _table(content: Mapping[str, Any]) -> Any:
    """Return our table of a pyproject.toml, None where there is none."""
    found: Any = content
    for name in TABLE:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _bytes(path: Path) -> bytes:
    try:
        # Opening a pipe or a device could wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{short(path)}: is no file; {MEND}")
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{short(path)}: cannot be read ({os_reason(error)}); {MEND}") from error
    if len(raw) > MOST_BYTES:
        raise ConfigError(f"{short(path)}: more than {MOST_BYTES // 10**6} MB; {MEND}")
    return raw


def _is_root(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in ROOTS)


def _require_own(path: Path) -> None:
    """Refuse another user's file above the working directory, as in /tmp: it could waive failures.

    Within a repository its owner decides.
    """
    if not hasattr(os, "getuid"):
        return
    if path.stat().st_uid not in (os.getuid(), 0):
        raise ConfigError(
            f"{short(path)}: belongs to another user; name it with --config if you trust it, or "
            "pass --no-config"
        )
