"""Parts of pages that are kept elsewhere: a section of the README, a table that was measured.

::

    <!-- section: README.md "Two commands" -->
    <!-- table: docs/inversion.md "Verdicts" -->
    <!-- table: docs/inversion.md "Verdicts" rows "whole suite" -->

Both are comments, so that whoever reads the file elsewhere sees a page without them and the link
beside. Paths are those of the repository.
"""

from __future__ import annotations

import re
from pathlib import Path

import links
from mkdocs.exceptions import PluginError

INSET = re.compile(
    r'^<!-- (?P<kind>section|table): (?P<file>\S+) "(?P<heading>[^"]+)"'
    r'(?: rows "(?P<rows>[^"]+)")? -->$',
    re.MULTILINE,
)
TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
FENCE = re.compile(r"^(```+)[^\n]*\n.*?^\1[^\n]*$", re.DOTALL | re.MULTILINE)


class MissingInsetError(PluginError):
    """What a page asks for is not where it says; the build ends."""


def filled(markdown: str, root: Path, place: Path) -> str:
    """Return a page with what it asks for."""

    def fill(found: re.Match[str]) -> str:
        source = Path(found["file"])
        text = section((root / source).read_text(), found["heading"], where=str(source))
        if found["kind"] == "table":
            text = table(text, found["rows"], where=f'{source} "{found["heading"]}"')
        return links.moved(text, of=source, to=place).strip()

    return INSET.sub(fill, markdown)


def section(text: str, heading: str, *, where: str) -> str:
    """Return what is beneath a heading, up to the next one.

    Raises:
        MissingInsetError: there is no such heading.
    """
    # A comment in a block of shell commands is no heading.
    shown = FENCE.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)
    start = re.search(rf"^#+ {re.escape(heading)}$", shown, re.MULTILINE)
    if start is None:
        raise MissingInsetError(f'{where} has no heading "{heading}"')
    end = re.compile(r"^#+ ", re.MULTILINE).search(shown, start.end())
    return text[start.end() : end.start() if end else None]


def table(text: str, rows: str | None, *, where: str) -> str:
    """Return the first table, with those of its rows that begin with ``rows``.

    Raises:
        MissingInsetError: there is no table, or no such row.
    """
    found = TABLE.search(f"{text}\n")
    if found is None:
        raise MissingInsetError(f"{where} has no table")
    head, rule, *body = found[0].splitlines()
    chosen = [row for row in body if rows is None or row.strip("| ").startswith(rows)]
    if not chosen:
        raise MissingInsetError(f'{where} has no row "{rows}"')
    return "\n".join([head, rule, *chosen])
