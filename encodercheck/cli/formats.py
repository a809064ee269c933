"""The formats of a report: an option each, and where one run writes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encodercheck.cli.output import STDOUT, require_writable
from encodercheck.errors import ConfigError

if TYPE_CHECKING:
    from encodercheck.report import Report

    Render = Callable[[Sequence[Report]], str]


def _option(name: str, what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        f"--{name}", metavar="F", help=f"Write the report as {what}; - is stdout."
    )
    return option


Json = Annotated[Path | None, _option("json", "JSON")]
Junit = Annotated[Path | None, _option("junit", "JUnit XML")]
Sarif = Annotated[Path | None, _option("sarif", "SARIF, for code scanning")]
Markdown = Annotated[Path | None, _option("markdown", "Markdown, for a job summary")]
Html = Annotated[Path | None, _option("html", "one HTML page, with pictures")]
Badge = Annotated[
    Path | None, _option("badge", "a badge: a drawing for F.svg, else shields.io's JSON")
]

# Each in a file of its own, which is imported when it is asked for.
RENDERS = {
    "json": "json:render",
    "junit": "junit:render",
    "sarif": "sarif:render",
    "markdown": "markdown:render",
    "html": "html:render",
    "badge": "badge:endpoint",
    "badge.svg": "badge:svg",
}


class Outputs:
    """Where a run writes its reports: a path for each format that is asked for.

    Raises:
        ConfigError: two formats go to one place.
    """

    def __init__(self, **paths: Path | None) -> None:
        self.paths: Mapping[str, Path] = {
            name: path for name, path in paths.items() if path is not None
        }
        self._require_distinct()

    @property
    def any(self) -> bool:
        """Whether any is asked for."""
        return bool(self.paths)

    @property
    def to_stdout(self) -> bool:
        """Whether one of them is stdout, which is then no place for anything else."""
        return any(str(path) == STDOUT for path in self.paths.values())

    def require_writable(self) -> None:
        """Find out before the scan, not after it, that a file could not be written.

        Raises:
            OutputError: it cannot.
        """
        for path in self.paths.values():
            require_writable(path)

    def write(self, reports: Sequence[Report]) -> None:
        """Write every format, each of them whole or not at all.

        Raises:
            OutputError: one of them cannot be written.
        """
        self.write_texts(lambda name, path: _render(name, path)(reports))

    def write_texts(self, text_of: Callable[[str, Path], str]) -> None:
        """Write the text that there is for a format and its path, for every one of them.

        Raises:
            OutputError: one of them cannot be written.
        """
        from encodercheck.cache import atomic_write_text

        for name, path in self.paths.items():
            text = text_of(name, path)
            if str(path) == STDOUT:
                # Whatever the terminal's encoding is, the formats say that they are UTF-8.
                typer.echo(text.encode(), nl=False)
            else:
                atomic_write_text(path, text)

    def _require_distinct(self) -> None:
        places: dict[str, str] = {}
        for name, path in self.paths.items():
            place = STDOUT if str(path) == STDOUT else os.path.realpath(path)
            if place in places:
                raise ConfigError(
                    f"--{places[place]} {path} and --{name} {path}: only one of them can go "
                    "there; name another file"
                )
            places[place] = name


def _render(name: str, path: Path) -> Render:
    drawn = f"{name}{path.suffix.lower()}"
    module, function = RENDERS.get(drawn, RENDERS[name]).split(":")
    render: Render = getattr(import_module(f"encodercheck.render.{module}"), function)
    return render
