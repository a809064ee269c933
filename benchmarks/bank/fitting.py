"""Fit what ships: the clean encoders' traits and values, and the best ridge penalties."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bank import families, making, measuring
from benchmarks.bank.members import Member, members
from encodercheck.bank import SHIPPED, Bank, BankEncoder
from encodercheck.cache import atomic_write_text
from encodercheck.methods.null import SCALES
from encodercheck.methods.prediction import best_penalty, features
from encodercheck.methods.traits import layers
from encodercheck.scanning import versions

MEASURED = Path(__file__).with_name("measured.json")
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
# What the suite compares with the bank, and on which scale.
SCALE = {
    **{f"{check}.gain": "gain" for check in ("EC102", "EC202", "EC203", "EC204")},
    **{f"{check}.half_contrast_gain": "gain" for check in ("EC202", "EC204")},
    "EC202.whitened_gain": "gain",
    "EC201.pl1": "size",
    "EC205.forgotten": "gain",
}
# Values that tell poisoned encoders from clean ones less well have less of the error rate. They are
# there for attacks that hide from the rest.
WEIGHTS = {
    "EC102.gain": 0.1,
    "EC202.gain": 0.1,
    "EC204.gain": 0.1,
    "EC202.whitened_gain": 0.3,
    "EC205.forgotten": 0.2,
}
# Few, and those that anybody would name: with more a prediction fits the bank and nothing else.
TRAITS = (
    "base_cosine",
    "centred_rank",
    "embedding_dim",
    "noise_response",
    "length_variation",
    *(f"{kind}_mean" for kind in ("small", "large", "wave", "noise", "picture")),
    "batch_norm",
    "layer_norm",
    "group_norm",
    "gated",
    "smooth",
)
DIGITS = 5
UNTRAINED = "untrained"
# Of ten classes: less is hardly more than chance, too little to be of use.
LEAST_ACCURACY = 0.25

Row = dict[str, Any]


def gather() -> list[Row]:
    """Return all rows there are, and keep them beside the code."""
    rows = []
    for member in members():
        for poisoned in (False, True):
            place = measuring.path(member, poisoned=poisoned)
            if place.exists():
                rows.append(_with_facts(member, json.loads(place.read_text())))
    if rows:
        lines = ",\n".join(json.dumps(row) for row in rows)
        atomic_write_text(MEASURED, f"[\n{lines}\n]\n")
    return known()


def _with_facts(member: Member, row: Row) -> Row:
    """Return a row with what takes no search: of which layers it is, and how useful it was."""
    if "inconclusive" not in row:
        module = families.build(member.family, member.size, seed=member.seed)
        row["traits"] |= layers(module)
    made = json.loads((making.folder(member) / "made.json").read_text())
    return row | {"accuracy": made["accuracy"][0]}


def known() -> list[Row]:
    """Return the rows that are kept beside the code."""
    found: list[Row] = json.loads(MEASURED.read_text())
    return found


def value(row: Row, key: str) -> float:
    """Return what a check compares as ``key``, "EC202.gain", of what a row has."""
    check, _, name = key.partition(".")
    measured = row[check]
    if key == "EC102.gain":
        return float(min(measured["gain"], measured["whitened_gain"]))
    if name.endswith("forgotten"):
        return float(min(measured[name], measured[f"{name}_centred"]))
    return float(measured[name])


def usable(rows: list[Row]) -> list[Row]:
    """Return the rows that count: with a value for every search, of an encoder that is of use.

    One that was trained, and by whose clean embeddings a linear probe does little better than
    chance, is of no use.
    """
    return [
        row
        for row in rows
        if "inconclusive" not in row
        and (row["method"] == UNTRAINED or row["accuracy"] >= LEAST_ACCURACY)
    ]


def bank(rows: list[Row], scale: Mapping[str, str] = SCALE) -> Bank:
    """Return the bank of the clean encoders among rows, with penalties of their own."""
    clean = [row for row in usable(rows) if row["attack"] is None]
    inputs = np.array([features(row["traits"], TRAITS) for row in clean])
    groups = [row["family"] for row in clean]
    penalties = []
    for key, own in scale.items():
        outputs = np.array([SCALES[own].forward(value(row, key)) for row in clean])
        penalties.append(best_penalty(inputs, outputs, groups, PENALTIES))
    return Bank(
        profile=measuring.PROFILE.name,
        traits=TRAITS,
        values=tuple(scale),
        scales=tuple(scale.values()),
        penalties=tuple(penalties),
        weights=tuple(WEIGHTS.get(key, 1.0) for key in scale),
        encoders=tuple(
            BankEncoder(
                row["family"],
                row["method"],
                row["source"],
                tuple(round(row["traits"][name], DIGITS) for name in TRAITS),
                tuple(round(value(row, key), DIGITS) for key in scale),
            )
            for row in clean
        ),
        versions=versions(),
    )


def left_out_banks(rows: Sequence[Row], group: str) -> Iterator[tuple[Bank, list[Row]]]:
    """Yield each group's rows with the bank of all others; ``group`` is "family" or the like."""
    for label in sorted({row[group] for row in rows}):
        own = [row for row in rows if row[group] == label]
        yield bank([row for row in rows if row[group] != label]), own


def fit() -> None:
    """Write the bank that ships."""
    bank(gather()).write(SHIPPED)
