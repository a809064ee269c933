"""docs/inversion.md, from the rows of benchmarks/inversion.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import alternatives, early_stopping, zoo
from encodercheck.cache import atomic_write_text
from encodercheck.intervals import area, share, surprise
from encodercheck.nulls import Nulls

Row = dict[str, Any]
PAGE = Path(__file__).parents[1] / "docs" / "inversion.md"
CHECKS = ("EC102", "EC201", "EC202", "EC203", "EC204")
KINDS = (*zoo.PATCHES, *zoo.OTHERS)
# Looked at before the search was last changed; everything else was not.
SEEN = (1, 3)


def write(rows: list[Row]) -> None:
    """Write the page."""
    scans, references, stopped, others, triggers = (
        [row for row in rows if row["what"] == what and "refused" not in row]
        for what in ("scan", "reference", "stopping", "alternative", "trigger")
    )
    refused = [row for row in rows if "refused" in row]
    lines = [
        "# Trigger inversion, measured",
        "",
        "Made by `python -m benchmarks.inversion` from [inversion.json](inversion.json); its head",
        "has the commands. Encoders are trained on one image generator and scanned with another.",
        "Limits and nulls were set on even seeds; everything below is about odd ones. Intervals",
        "are Wilson's for rates and bootstrapped for areas, 95 %. Seeds 1 and 3 had been looked at",
        "before the search was last changed; the others had not. The rule by which a null picks",
        "the clean encoders that count (the six most alike, for small ViTs only) was made after",
        "the ViTs here had been seen, and three of the null's masked autoencoders joined it after",
        "they had been scanned: [kinds.md](kinds.md) has others. How long it all takes is in",
        "[inversion-speed.md](inversion-speed.md).",
        "",
        coverage(scans, refused),
        "",
        "## Verdicts",
        "",
        *verdicts(scans, references),
        "",
        left_out(Nulls.shipped()),
        "",
        "## By attack",
        "",
        *by_attack(scans, references),
        "",
        "## Early stopping",
        "",
        "A search with a limit, which may end early, and the same search to its end, scored on the",
        "same held-out images.",
        "",
        *early_stopping.table(stopped),
        "",
        "## Verdicts without clean encoders",
        "",
        "One limit for all architectures, set on even seeds, for statistics that need no null. The",
        "last line is what the suite does instead.",
        "",
        *alternatives.table(others, scans),
        "",
        "## Every encoder reported on",
        "",
        "*Own* is the gain of the attacker's own trigger on the images of the scan: what a search",
        "for alike embeddings could hope for.",
        "",
        *every(scans, references, triggers),
    ]
    if refused:
        lines += ["", "## Refused by their certificates", ""]
        lines += [f"- {name(row)}: {row['refused']}" for row in refused]
    atomic_write_text(PAGE, "\n".join([*lines, ""]))


def coverage(scans: list[Row], refused: list[Row]) -> str:
    """Say how much of the zoo has been measured."""
    planned = [member for member in zoo.members() if member.reported]
    done = [row for row in scans if row["reported"]]
    clean = sum(row["kind"] == "clean" for row in done)
    return (
        f"Measured are {clean} clean and {len(done) - clean} poisoned encoders of the zoo's "
        f"{len(planned)} to report on; {len(refused)} were refused, see the end."
    )


def verdicts(scans: list[Row], references: list[Row]) -> list[str]:
    """Return the table of accuracies and areas, of the suite, of each check, and of the loop."""
    lines = [
        "| what decides | clean that failed | patch attacks that failed | accuracy | AUROC | "
        "other attacks that failed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines.append(_verdict("whole suite", scans, _failed, _suspicion))
    fresh = [row for row in scans if row["seed"] not in SEEN]
    lines.append(_verdict("whole suite, seeds from 5 on", fresh, _failed, _suspicion))
    for check in CHECKS:
        lines.append(
            _verdict(
                check,
                scans,
                lambda row, check=check: row["outcomes"][check] == "failed",
                lambda row, check=check: surprise(row["values"][check]["p"]),
            )
        )
    lines.append(
        _verdict(
            "published loop, PL1 < 0.1", references, lambda r: r["backdoored"], lambda r: -r["pl1"]
        )
    )
    return lines


def left_out(known: Nulls) -> str:
    """Say how many of the null's own encoders would fail against the others of their kind."""
    alarms = 0
    for one in known.encoders:
        others = replace(known, encoders=tuple(e for e in known.encoders if e is not one))
        nulls = {
            check: others.find(
                f"{check}.{name}",
                scale="size" if name == "PL1" else "gain",
                architecture=one.architecture,
                image_size=one.image_size,
                structure=one.structure,
                profile=one.profile,
                images=one.images,
            )
            for check, name in NAMES.items()
        }
        values = {check: one.values[f"{check}.{name.lower()}"] for check, name in NAMES.items()}
        alarms += any(null.p_value(values[c]) < null.alpha for c, null in nulls.items())
    count = len(known.encoders)
    return (
        "The null's own clean encoders, each against the others of its architecture "
        f"(its own search not stopped early): {share(alarms, count)} would fail."
    )


def _verdict(
    title: str, rows: list[Row], fails: Callable[[Row], bool], score: Callable[[Row], float]
) -> str:
    reported = [row for row in rows if row["reported"]]
    clean, patches, others = (
        [row for row in reported if row["kind"] in kinds]
        for kinds in (("clean",), zoo.PATCHES, zoo.OTHERS)
    )
    alarms, hits, also = (sum(map(fails, part)) for part in (clean, patches, others))
    right = len(clean) - alarms + hits
    cells = (
        title,
        share(alarms, len(clean)),
        share(hits, len(patches)),
        share(right, len(clean) + len(patches)),
        area([score(row) for row in patches], [score(row) for row in clean]),
        share(also, len(others)),
    )
    return f"| {' | '.join(cells)} |"


def by_attack(scans: list[Row], references: list[Row]) -> list[str]:
    """Return how many encoders of each kind fail, by architecture, and by which checks."""
    titles = ["attack", *zoo.PRETRAINING, "checks that fail", "published loop"]
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for kind in ("clean", *KINDS):
        own = [row for row in scans if row["reported"] and row["kind"] == kind]
        cells = [
            _count(_failed, [row for row in own if row["architecture"] == architecture])
            for architecture in zoo.PRETRAINING
        ]
        checks = {check: sum(row["outcomes"][check] == "failed" for row in own) for check in CHECKS}
        fired = ", ".join(f"{check} {count}" for check, count in checks.items() if count)
        loop = [row for row in references if row["kind"] == kind]
        cells = [kind, *cells, fired or "none", _count(lambda row: row["backdoored"], loop)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def every(scans: list[Row], references: list[Row], triggers: list[Row]) -> list[str]:
    """Return one line for each encoder."""
    loops = {_key(row): row for row in references}
    gains = {_key(row): row["gains"] for row in triggers}
    titles = ["encoder", "own", "verdict", *(f"{check} {NAMES[check]} (p)" for check in CHECKS)]
    titles.append("loop PL1")
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for row in (row for row in scans if row["reported"]):
        own = " ".join(f"{gain:.2f}" for gain in gains.get(_key(row), ()))
        cells = [name(row), own, row["outcome"]]
        for check in CHECKS:
            value, p = (row["values"][check][part] for part in ("value", "p"))
            text = row["outcomes"][check] if value is None else f"{value:.3f}"
            cross = " ✗" if row["outcomes"][check] == "failed" else ""
            cells.append(f"{text} ({p:.2g}){cross}" if p is not None else text)
        loop = loops.get(_key(row))
        cells.append(f"{loop['pl1']:.3f}" if loop else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


NAMES = {"EC102": "gain", "EC201": "PL1", "EC202": "gain", "EC203": "gain", "EC204": "gain"}


def name(row: Row) -> str:
    """Return what a row is about."""
    return f"{row['architecture']}, {row['kind']}, seed {row['seed']}"


def _failed(row: Row) -> bool:
    return bool(row["outcome"] == "failed")


def _suspicion(row: Row) -> float:
    """Return the suite's score: the surprise of its most surprised check."""
    return max(surprise(row["values"][check]["p"]) for check in CHECKS)


def _count(fails: Callable[[Row], bool], rows: Iterable[Row]) -> str:
    verdicts = [fails(row) for row in rows]
    return f"{sum(verdicts)} of {len(verdicts)}" if verdicts else ""


def _key(row: Row) -> tuple[str, str, int]:
    return row["architecture"], row["kind"], row["seed"]
