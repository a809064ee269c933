"""The keys of a configuration file: what each one means, and what it may be.

Commands have an option of each name; :data:`KEYS` is what they and docs/configuration.md go by.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encodercheck.config.rules import require_limit
from encodercheck.config.seeds import TAKES, check_seed
from encodercheck.config.sizes import parse_size
from encodercheck.errors import ConfigError
from encodercheck.known.waivers import ModelWaiver
from encodercheck.profiles import PROFILES
from encodercheck.severities import SEVERITIES
from encodercheck.suggest import did_you_mean

DEVICES = ("auto", "cpu", "cuda", "mps")
# As in an id with a dot: [severity] A.b = "low" is a table in a table to TOML.
DEEPEST = 8

Read = Callable[[Any, Path], Any]


@dataclass(frozen=True)
class Key:
    """A key: what it sets, what is expected, and how a value is read.

    ``read`` takes the value and the folder of the file, which relative paths are relative to, and
    raises ValueError with what is wrong, or with nothing where ``expected`` says it all.
    """

    name: str
    sets: str
    expected: str
    read: Read
    variable: bool = False

    @property
    def parameter(self) -> str:
        """What commands call it."""
        return self.name.replace("-", "_")

    @property
    def environment(self) -> str | None:
        """The environment variable that sets it, None where there is none."""
        return f"ENCODERCHECK_{self.parameter.upper()}" if self.variable else None


def _text(value: Any, _: Path) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError
    return value


def _path(value: Any, folder: Path) -> str:
    """Return a path relative to the file as one that works from here, short where it can be."""
    path = Path(os.path.normpath(folder / _text(value, folder)))
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _images(value: Any, folder: Path) -> str:
    """A folder, or a data set as ``cifar10:DIR``; a drive letter is none."""
    name, colon, rest = _text(value, folder).partition(":")
    if colon and len(name) > 1 and name.isalnum() and rest:
        return f"{name}:{_path(rest, folder)}"
    return _path(value, folder)


def _list(read: Read) -> Read:
    def read_list(value: Any, folder: Path) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError
        return [read(item, folder) for item in value]

    return read_list


def _one_of(choices: tuple[str, ...]) -> Read:
    def read(value: Any, _: Path) -> str:
        if not isinstance(value, str):
            raise ValueError
        if value not in choices:
            raise ValueError(did_you_mean(value, choices))
        return value

    return read


def _seed(value: Any, _: Path) -> int | str:
    try:
        return check_seed(value)
    except ValueError:
        # What is expected says it all.
        raise ValueError from None


def _flag(value: Any, _: Path) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _size(value: Any, _: Path) -> int:
    if type(value) not in (int, str):
        raise ValueError
    return parse_size(str(value))


def _limits(value: Any, _: Path) -> dict[str, float]:
    limits = flattened(value)
    for key, limit in limits.items():
        try:
            require_limit(key, limit)
        except ConfigError as error:
            raise ValueError(str(error)) from error
    return {key: float(limit) for key, limit in limits.items()}


def _severities(value: Any, folder: Path) -> dict[str, str]:
    grades = flattened(value)
    for id_, severity in grades.items():
        try:
            _one_of(SEVERITIES)(severity, folder)
        except ValueError as error:
            raise ValueError(f"{id_} = {severity!r:.40}; {error}".removesuffix("; ")) from error
    return grades


def _waivers(value: Any, _: Path) -> tuple[ModelWaiver, ...]:
    if not isinstance(value, list):
        raise ValueError
    waivers = []
    for number, table in enumerate(value, start=1):
        try:
            waivers.append(ModelWaiver.from_table(table))
        except ValueError as error:
            raise ValueError(f"waiver {number}: {error}") from error
    return tuple(waivers)


def flattened(value: Any, prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Return a table of tables as one table: TOML takes ``EC202.gain = 0.9`` for two of them.

    Raises:
        ValueError: it is no table, a key comes twice, or there is nothing in a table.
    """
    if not isinstance(value, dict) or depth > DEEPEST:
        raise ValueError
    flat: dict[str, Any] = {}
    for name, item in value.items():
        key = f"{prefix}{name}"
        if not key.isprintable():
            raise ValueError(f"{key!r:.80} is no id")
        if isinstance(item, dict) and not item:
            raise ValueError(f"{key} is an empty table")
        new = flattened(item, f"{key}.", depth + 1) if isinstance(item, dict) else {key: item}
        twice = flat.keys() & new.keys()
        if twice:
            raise ValueError(f"{min(twice)} is there twice")
        flat.update(new)
    return flat


_SEVERITY = " or ".join(SEVERITIES)

KEYS = {
    key.name: key
    for key in (
        Key(
            "images",
            "the clean images to scan with",
            "a folder, or a data set as cifar10:DIR",
            _images,
            variable=True,
        ),
        Key(
            "profile",
            "how hard to look",
            " or ".join(PROFILES),
            _one_of(tuple(PROFILES)),
            variable=True,
        ),
        Key("seed", "the seed of the scan", TAKES, _seed, variable=True),
        Key(
            "device",
            "where the encoder runs",
            " or ".join(DEVICES),
            _one_of(DEVICES),
            variable=True,
        ),
        Key(
            "strict",
            "whether an inconclusive check is exit code 2",
            "true or false",
            _flag,
            variable=True,
        ),
        Key("checks", "further checks", "a list of files or folders of check_*.py", _list(_path)),
        Key("select", "the checks to run", "a list of check ids or patterns", _list(_text)),
        Key("ignore", "the checks not to run", "a list of check ids or patterns", _list(_text)),
        Key(
            "null",
            "further clean encoders to compare with",
            "a file that calibrate wrote",
            _path,
            variable=True,
        ),
        Key(
            "max-memory",
            "a bound on the memory at work",
            "a size such as 2GB, or bytes",
            _size,
            variable=True,
        ),
        Key("artifacts", "where witnesses go", "a folder", _path, variable=True),
        Key(
            "fail-on",
            "the least severity whose failures count",
            _SEVERITY,
            _one_of(SEVERITIES),
            variable=True,
        ),
        Key(
            "fail-fast",
            "whether no check runs after a failure",
            "true or false",
            _flag,
            variable=True,
        ),
        Key("limits", "limits of measurements", 'a table as "EC202.gain" = 0.9', _limits),
        Key("severity", "severities of checks", f"a table of check ids: {_SEVERITY}", _severities),
        Key(
            "waivers",
            "accepted failures",
            "an array of tables of model, check, reason, expires",
            _waivers,
        ),
    )
}
