"""Which check a pytest item is: its marker, id and severity, and what it is to catch."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from encodercheck.errors import ConfigError
from encodercheck.harness.listener import CheckInfo
from encodercheck.severities import SEVERITIES

PREFIX = "check_"
ID = re.compile(r"\w[\w.-]*")


class CheckModule(pytest.Module):
    """A file of checks: the functions called ``check_*`` are collected."""

    def funcnamefilter(self, name: str) -> bool:
        """Take checks, and what the user's own pytest would take."""
        return name.startswith(PREFIX) or super().funcnamefilter(name)


def is_check(item: pytest.Item) -> bool:
    """Tell a check from a test that is collected beside it."""
    return item.name.startswith(PREFIX) and item.getparent(CheckModule) is not None


def check_info(item: pytest.Item) -> CheckInfo:
    """Return what the marker, the name and the docstring say of a check.

    Raises:
        ConfigError: the marker is malformed, or the function is asynchronous.
    """
    name = function_name(item)
    function = getattr(item, "function", None)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(f"{place(item)}: a check is a plain function, not an async one")
    marked = _marked(item, name)
    documentation = inspect.getdoc(function) if function is not None else None
    return CheckInfo(
        id=marked.id + item.name.removeprefix(name),
        check=item.nodeid,
        title=(documentation or "").partition("\n")[0],
        severity=marked.severity,
        catches=marked.catches,
        cost=marked.cost,
    )


def require_distinct(items: Iterable[tuple[str, str]]) -> None:
    """Refuse two checks with one id, given as (id, place).

    Raises:
        ConfigError: naming both places.
    """
    places: dict[str, str] = {}
    for id_, where in items:
        first = places.setdefault(id_, where)
        if first != where:
            raise ConfigError(
                f"check id {id_}: taken by {first} and by {where}; "
                'give one of them another with @pytest.mark.check("...")'
            )


def base_id(info: CheckInfo) -> str:
    """Return the id without the parameters."""
    return info.id.partition("[")[0]


def place(item: pytest.Item) -> str:
    """Say where a check is defined, as ``checks/check_a.py::check_b``."""
    return f"{shown(item.path)}::{function_name(item)}"


def function_name(item: pytest.Item) -> str:
    """Return the item's name without the parameters."""
    return str(getattr(item, "originalname", None) or item.name)


def shown(path: Path) -> str:
    """Return a path as short as it can be read from the working directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@dataclass(frozen=True)
class Marked:
    """What the marker of a check says."""

    id: str
    severity: str
    catches: tuple[str, ...]
    cost: float


def _marked(item: pytest.Item, name: str) -> Marked:
    marker = item.get_closest_marker("check")
    arguments = marker.args if marker else ()
    options = dict(marker.kwargs) if marker else {}
    severity = options.pop("severity", "medium")
    catches = options.pop("catches", ())
    cost = options.pop("cost", 1)
    if options or len(arguments) > 1:
        raise ConfigError(
            f"{place(item)}: write @pytest.mark.check(id, severity=..., catches=[...], cost=...)"
        )
    id_ = arguments[0] if arguments else name.removeprefix(PREFIX)
    if not isinstance(id_, str) or not ID.fullmatch(id_):
        raise ConfigError(
            f"{place(item)}: check id {id_!r}: use letters, digits, dots, dashes and underscores"
        )
    if severity not in SEVERITIES:
        raise ConfigError(
            f"{place(item)}: severity {severity!r}: choose one of {', '.join(SEVERITIES)}"
        )
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost < math.inf:
        raise ConfigError(f"{place(item)}: cost {cost!r:.40}: give a number, 0 or more")
    return Marked(id_, severity, _patterns(item, catches), float(cost))


def _patterns(item: pytest.Item, catches: object) -> tuple[str, ...]:
    """Return the names and patterns of fixtures that a check says it catches."""
    patterns = tuple(catches) if isinstance(catches, list | tuple) else (catches,)
    if isinstance(catches, str) or not all(isinstance(p, str) and p for p in patterns):
        raise ConfigError(
            f"{place(item)}: catches {catches!r}: write a list of names of fixtures, as "
            'catches=["badencoder*"]'
        )
    for pattern in patterns:
        if "@" in pattern:
            raise ConfigError(
                f"{place(item)}: catches {pattern!r}: a fixture is caught with any seed; write "
                f"{pattern.partition('@')[0]!r}"
            )
    return patterns
