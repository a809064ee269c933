"""The page: what the template gets, and the template's tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment

from encodercheck.render.html.page import digest, style_sheet, templates
from encodercheck.render.words import cut, number
from encodercheck.render.zoo_page.rows import GROUPS, Facts, Row

# Rows that are laid out at once: enough for the tallest screen, few enough to be there at once.
CHUNK = 100
KINDS = {"failed": "failed", "none": "inconclusive", "passed": "passed"}
COLUMNS = {
    "verdict": "Verdict",
    "model": "Model",
    "check": "Worst check",
    "p": "p-value",
    "architecture": "Architecture",
    "parameters": "Parameters",
    "seconds": "Time",
}
MOST_NAMED = 3


def render(rows: Sequence[Row], facts: Facts) -> str:
    """Return a page with a row for each model, what failed first.

    It loads nothing, and its policy lets in one style sheet and one script: its own. Without the
    script it is a plain table.
    """
    style, script = style_sheet() + _own("zoo_page.css"), _own("zoo_page.js")
    return (
        _environment()
        .get_template("zoo_page.html.j2")
        .render(
            chunks=list(_chunks(sorted(rows, key=lambda row: row.order))),
            count=len(rows),
            shares=_shares(rows),
            doubtful=sum(row.label == "Passed" and row.kind != "passed" for row in rows),
            facts=facts,
            style=style,
            script=script,
            policy=(
                "default-src 'none'; base-uri 'none'; form-action 'none'; "
                f"style-src {digest(style)}; script-src {digest(script)}"
            ),
        )
    )


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


def _shares(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return for each verdict how many models have it, and its place on a bar in percent."""
    counts, start, shares = Counter(row.group for row in rows), 0.0, []
    for group, label in GROUPS.items():
        part = 100 * counts[group] / max(1, len(rows))
        shares.append(
            {
                "group": group,
                "label": label,
                "kind": KINDS[group],
                "count": counts[group],
                "percent": _percent(counts[group], len(rows)),
                "x": round(start, 3),
                "width": round(part, 3),
            }
        )
        start += part
    return shares


def _percent(count: int, of: int) -> str:
    """Return a share that is rounded, and never to nothing or to all where it is neither."""
    part = 100 * count / max(1, of)
    if 0 < part < 0.1:
        return "< 0.1 %"
    if 99.9 < part < 100:
        return "> 99.9 %"
    return f"{part:.0f} %" if part in (0, 100) else f"{part:.1f} %"


def _duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> _duration(8.25), _duration(90), _duration(7300), _duration(1e6)
    ('8.2 s', '1.5 min', '2.0 h', '11.6 days')
    """
    for most, part, unit in ((60, 1, "s"), (3600, 60, "min"), (86400 * 2, 3600, "h")):
        if seconds < most:
            return f"{seconds / part:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"


def _named(counts: Counter[str]) -> str:
    """Return the commonest texts, as "0.1.0, 0.2.0 and 2 more"."""
    names = [cut(name, 40) for name, _ in counts.most_common() if name]
    more = len(names) - MOST_NAMED
    told = ", ".join(names[:MOST_NAMED])
    return f"{told} and {more} more" if more > 0 else told


@cache
def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


@cache
def _environment() -> Environment:
    environment = templates(__package__)
    environment.filters.update(number=number, duration=_duration, named=_named)
    environment.globals.update(COLUMNS=COLUMNS)
    return environment
