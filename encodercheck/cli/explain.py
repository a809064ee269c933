"""``encodercheck explain``: what a check measures, when it fails, and what to do then."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

import encodercheck
from encodercheck.cli import completion, options
from encodercheck.errors import ConfigError
from encodercheck.suggest import did_you_mean

HEADING = re.compile(r"## (EC\d+) .*")
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def command(
    check: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="A check's id, as EC202.",
            show_default=False,
            autocompletion=completion.check_ids,
        ),
    ],
    checks: options.Checks = None,
) -> None:
    """Say what a check measures, what its limit is, what it cannot see, and what to do."""
    text = sections().get(check.upper()) or _of_a_users_own(check, checks or [])
    from rich.markdown import Markdown

    from encodercheck.cli.output import console

    with console() as screen:
        screen.soft_wrap = False
        screen.print(Markdown(text))


def sections() -> dict[str, str]:
    """Return what docs/checks.md says of each built-in check, by id, without links.

    Raises:
        ConfigError: the installation lacks the page.
    """
    # In the package where it is installed, beside it in a checkout.
    package = Path(encodercheck.__file__).parent
    places = (folder / "docs" / "checks.md" for folder in (package, package.parent))
    page = next(filter(Path.is_file, places), None)
    if page is None:
        raise ConfigError("the page about the checks is not installed; reinstall encodercheck")
    found: dict[str, str] = {}
    for section in re.split(r"(?m)^(?=## )", page.read_text(encoding="utf-8")):
        if heading := HEADING.match(section):
            found[heading[1]] = LINK.sub(r"\1", section).strip()
    return found


def _of_a_users_own(check: str, checks: list[Path]) -> str:
    """Return what there is to say of a check that is not built in.

    Raises:
        ConfigError: there is no such check.
    """
    from encodercheck.harness.origins import list_origins

    listed = {one.info.id: one for one in list_origins(checks)}
    if check not in listed:
        raise ConfigError(f"there is no check {check!r}; {did_you_mean(check, listed)}")
    info = listed[check].info
    lines = [f"## {info.id} ({info.severity})", "", info.title or "It has no docstring.", ""]
    lines += [f"- **Defined** in {listed[check].file}, `{info.check.partition('::')[2]}`."]
    if info.catches:
        lines += [f"- **Catches** {', '.join(info.catches)}, as its marker says."]
    return "\n".join(lines)
