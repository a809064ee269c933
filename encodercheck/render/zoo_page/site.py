"""The page in its folder: a report of its own for each model, and the index of all of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from encodercheck.cache import atomic_write_text
from encodercheck.progress import Progress, silent
from encodercheck.render import html
from encodercheck.render.words import counted
from encodercheck.render.zoo_page import page, rows
from encodercheck.zoo.saved import Result, readable

NAME = "report.html"


def build(
    results: Sequence[Result],
    out: Path,
    *,
    with_reports: bool = True,
    progress: Progress = silent,
) -> tuple[list[rows.Row], list[str]]:
    """Write the index to ``out``; return its rows, and the faults of what could not be read.

    Each model's own report is written beside its ``report.json``, where it is missing or older;
    not ``with_reports`` those that are there are linked. Memory grows by a row a model.

    Raises:
        OutputError: a page cannot be written.
    """
    faults: list[str] = []
    facts = rows.Facts(str(results[0].folder) if results else "")
    made = []
    for step, result in enumerate(results):
        progress(step, len(results), result.model)
        known = len(faults)
        report = readable(result, faults)
        own = result.file.with_name(NAME)
        if with_reports and len(faults) == known and _is_stale(own, result.file):
            atomic_write_text(own, html.render([report]))
        facts.add(report, result.entry.finished)
        made.append(rows.of(report, model=result.model, link=_link(own, out.parent)))
    atomic_write_text(out, page.render(made, facts))
    return made, faults


def sentence(made: Sequence[rows.Row]) -> str:
    """Say how scans ended, as "5,000 models, 12 failed, 3 no verdict, 4,985 passed"."""
    counts = Counter(row.group for row in made)
    told = (f"{counts[group]:,} {label.lower()}" for group, label in rows.GROUPS.items())
    return ", ".join([counted(len(made), "model"), *told])


def _is_stale(own: Path, source: Path) -> bool:
    try:
        return own.stat().st_mtime_ns < source.stat().st_mtime_ns
    except OSError:
        return True


def _link(own: Path, folder: Path) -> str | None:
    """Return how the page in ``folder`` leads to a report; None where there is none."""
    if not own.is_file():
        return None
    # What a name holds is quoted, so that it is a path and nothing else.
    return quote(Path(os.path.relpath(own, folder)).as_posix())
