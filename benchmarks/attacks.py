"""The large table: every attack on every architecture, what its certificate says and what we say.

    python -m benchmarks.zoo --jobs 2              # builds the encoders that all tables share
    python -m benchmarks.zoo --more --jobs 2       # and those that only this one has
    python -m benchmarks.attacks scans             # the suite on the encoders of --more
    python -m benchmarks.attacks certificates      # what the attacks achieved on what was scanned
    python -m benchmarks.attacks table             # docs/attacks.md

Rows go to docs/attacks.json one by one, and what is there is not measured again: a run that was
killed goes on where it was. The scans of the shared encoders are those of docs/inversion.json, with
EC301's rows from docs/dede.json. ``--part 1/2`` shares the work between processes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

# Threads that spin while they wait slow each other down as soon as a core is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks import dede, inversion, zoo
from benchmarks.rows import Member, Row, Rows

ROOT = Path(__file__).parents[1]
ROWS = Rows(ROOT / "docs" / "attacks.json", elsewhere=(inversion.ROWS,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=[*KINDS, "table"])
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.action == "table":
        from benchmarks.attacks_table import write

        write(ROWS.read(), inversion.ROWS.read(), dede.ROWS.read())
        return
    index, count = map(int, options.part.split("/"))
    what, measure, chosen = KINDS[options.action]
    for number, member in enumerate(chosen()):
        if number % count == index - 1:
            ROWS.add(what, member, partial(measure, member))


def certificate(member: zoo.Member) -> Row:
    """Return what an encoder's certificate says."""
    found = member.build().certificate
    return {
        "clean_accuracy": found["clean_accuracy"],
        "backdoored_accuracy": found.get("backdoored_accuracy"),
        "triggers": [
            {key: trigger[key] for key in ("target", "attack_success", "attack_success_on_clean")}
            for trigger in found.get("triggers", ())
        ],
        "seconds": sum(found["seconds"].values()),
        "build_threads": found["threads"],
    }


def scan(member: Member) -> Row:
    """Return what the whole suite says of an encoder."""
    report = inversion.run(member.build().path, member.seed).to_dict()
    return {
        "outcome": report["outcome"],
        "outcomes": {finding["id"]: finding["outcome"] for finding in report["findings"]},
        "p_values": {
            finding["id"]: measured["value"]
            for finding in report["findings"]
            for measured in finding["measurements"]
            if measured["name"] == "p_value"
        },
        "messages": {
            finding["id"]: finding["message"]
            for finding in report["findings"]
            if finding["outcome"] != "passed"
        },
        "seconds": report["seconds"],
    }


def scanned() -> list[zoo.Member]:
    """Return the encoders that were scanned, here or for the tables that this one shares."""
    rows = [row for rows in (ROWS, inversion.ROWS) for row in rows.read() if row["what"] == "scan"]
    known = {(row["architecture"], row["kind"], row["seed"]) for row in rows}
    members = [*(member for member in zoo.members() if member.reported), *zoo.more()]
    return [m for m in members if (m.architecture, m.kind, m.seed) in known]


# What is measured of an encoder: the kind of its rows, how, and of which encoders.
KINDS: dict[str, tuple[str, Callable[[zoo.Member], Row], Callable[[], list[zoo.Member]]]] = {
    "certificates": ("certificate", certificate, scanned),
    "scans": ("scan", scan, lambda: list(zoo.more())),
}


if __name__ == "__main__":
    main()
