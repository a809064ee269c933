"""What stopping a search early costs: verdicts of stopped searches against those of full ones."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from encodercheck.harness.state import ScanState
from encodercheck.intervals import share
from encodercheck.methods import collapse, inversion

SEARCHES: dict[str, Callable[..., inversion.Inversion]] = {
    "EC202": inversion.invert,
    "EC203": inversion.invert_faint,
    "EC204": inversion.invert_large,
}

Row = dict[str, Any]


def measure(state: ScanState) -> Row:
    """Run each search twice on an encoder, once with its limit and once to the end."""
    encoder, split = state.encoder.folded(), state.images.split()
    base = collapse.base_cosine(encoder, split.held_out)
    searches = {}
    for check, search in SEARCHES.items():
        null = state.null(f"{check}.gain", scale="gain")
        row: Row = {}
        for how, limit in (("stopped", null.decides), ("full", None)):
            started = time.perf_counter()
            found = search(
                encoder, split.search, profile=state.profile, seed=state.seed, limit=limit
            )
            cosine = collapse.stamped_cosine(encoder, found.trigger, split.held_out)
            gain = collapse.gain(cosine, base)
            row[how] = {
                "gain": gain,
                "fails": gain > null.limit,
                "steps": found.steps,
                "ended": found.ended,
                "seconds": time.perf_counter() - started,
            }
        searches[check] = row
    return {"searches": searches}


def table(rows: list[Row]) -> list[str]:
    """Return how often stopping lost a trigger, or raised an alarm, and what it saved."""
    if not rows:
        return ["Not measured."]
    titles = (
        "search",
        "encoders",
        "found by the full search and lost by stopping",
        "failed by stopping and not by the full search",
        "steps, clean",
        "steps, poisoned",
        "full steps",
    )
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for check in SEARCHES:
        for title, reported in (("even seeds", False), ("odd seeds", True)):
            chosen = [row for row in rows if row["reported"] is reported]
            own = [row["searches"][check] for row in chosen]
            if not own:
                continue
            found = [one for one in own if one["full"]["fails"]]
            passed = [one for one in own if not one["full"]["fails"]]
            steps = [
                statistics.median(
                    [
                        row["searches"][check]["stopped"]["steps"]
                        for row in chosen
                        if (row["kind"] == "clean") is clean
                    ]
                    or [0]
                )
                for clean in (True, False)
            ]
            cells = [
                f"{check}, {title}",
                str(len(own)),
                share(sum(not one["stopped"]["fails"] for one in found), len(found)),
                share(sum(one["stopped"]["fails"] for one in passed), len(passed)),
                *(f"{count:.0f}" for count in steps),
                str(max(one["full"]["steps"] for one in own)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines
