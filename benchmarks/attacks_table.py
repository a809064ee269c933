"""docs/attacks.md, from the rows of benchmarks/attacks.py and of the tables it shares."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks import zoo
from benchmarks.rows import Row
from encodercheck.cache import atomic_write_text
from encodercheck.intervals import area, share, surprise
from encodercheck.methods.null import DOUBT, OWN_ALPHA

PAGE = Path(__file__).parents[1] / "docs" / "attacks.md"
CLEAN = ("clean", zoo.TWIN)
ATTACKS = (*zoo.PATCHES, *zoo.OTHERS, *zoo.LATER)
SUMMARIES = {
    "clean": "SimCLR",
    zoo.TWIN: "fine-tuned like a poisoned one, without a trigger",
    "white": "BadEncoder, white 5x5 patch in a corner",
    "noise": "BadEncoder, random 5x5 patch anywhere",
    "small": "BadEncoder, random 3x3 patch anywhere",
    "large": "BadEncoder, random 16x16 patch anywhere",
    "multi": "BadEncoder, three patches for three classes",
    "blend": "BadEncoder, a picture blended with the whole image",
    "wave": "BadEncoder, CTRL's frequency trigger",
    "invisible": "a faint pattern trained with the encoder, after INACTIVE",
    "drupe": "DRUPE, white 5x5 patch",
    "adaptive": "BadEncoder trained against trigger inversion, white 5x5 patch",
    "dynamic": "BadEncoder, a 6x6 patch at another place on every image",
    "warp": "BadEncoder, a warp of the whole image (WaNet)",
    "lba": "latent backdoor, white 5x5 patch",
}
Scans = dict[tuple[str, str, int], Row]


def write(rows: list[Row], inversion: list[Row], dede: list[Row]) -> None:
    """Write the page."""
    scans = merged(rows, inversion, dede)
    certificates = [row for row in rows if row["what"] == "certificate" and "refused" not in row]
    refused = [row for row in rows if "refused" in row]
    found = list(scans.values())
    clean = sum(row["kind"] in CLEAN for row in found)
    lines = [
        "# Attacks, and what the suite says of them",
        "",
        "Made by `python -m benchmarks.attacks table` from [attacks.json](attacks.json) and, for",
        "the encoders that other tables have as well, [inversion.json](inversion.json) and",
        "[dede.json](dede.json). All encoders are of odd seeds: limits and nulls were set on even",
        "ones. They are trained on one image generator and scanned with another. The rule by which",
        "a null picks the clean ViTs that count was made after those here had been seen, and three",
        "of the null's masked autoencoders joined it after they had been scanned:",
        "[kinds.md](kinds.md) has others. The fixtures by name, CLIP and attacks on pre-training",
        "among them, are in [fixtures.md](fixtures.md).",
        "",
        f"Scanned are {clean} clean and {len(found) - clean} poisoned encoders; "
        f"{len({_key(row) for row in refused})} more were refused by their certificates.",
        "",
        "## What the attacks achieved",
        "",
        "Means over encoders, classifier with one layer; the least ASR of any trigger. For",
        "comparison BadEncoder's paper (S&P 2022, encoder pre-trained on CIFAR-10): GTSRB CA",
        "0.818, BA 0.823, ASR 0.986; SVHN 0.585, 0.693, 0.991; STL-10 0.767, 0.762, 0.997.",
        "",
        *achieved(certificates),
        "",
        "## Verdicts, as DECREE's table 3 has them",
        "",
        "An encoder is called backdoored where any check of the suite fails. FP and TN are of the",
        "clean encoders of the same architecture, fine-tuned ones included.",
        "",
        *verdicts(scans),
        "",
        *pooled(found),
        "",
        "## By check",
        "",
        *by_check(found),
        "",
        "## Encoders on the wrong side",
        "",
        *wrong(found),
    ]
    if refused:
        lines += ["", "## Refused by their certificates", ""]
        seen = {_key(row): row["refused"] for row in refused}
        lines += [f"- {', '.join(map(str, key))}: {reason}" for key, reason in seen.items()]
    atomic_write_text(PAGE, "\n".join([*lines, ""]))


def merged(rows: list[Row], inversion: list[Row], dede: list[Row]) -> Scans:
    """Return a row for each encoder scanned, with EC301's verdict where it was scanned apart."""
    drifts = {_key(r): r for r in dede if r["what"] == "drift" and "refused" not in r}
    scans: Scans = {}
    for row in inversion:
        key = _key(row)
        if row["what"] != "scan" or "refused" in row or not row["reported"]:
            continue
        p_values = {check: value["p"] for check, value in row["values"].items()}
        if "EC301" in p_values:
            scans[key] = {**row, "p_values": p_values}
        elif key in drifts:
            scans[key] = _with_drift({**row, "p_values": p_values}, drifts[key])
    scans |= {_key(r): r for r in rows if r["what"] == "scan" and "refused" not in r}
    return scans


def _with_drift(row: Row, drift: Row) -> Row:
    """Return the row of a scan without EC301, with what that check said when it was run alone.

    Its rule is the one of now: doubtful values were passed once.
    """
    p, outcome = drift["values"].get("p_value"), drift["outcome"]
    if outcome == "passed" and p is not None and OWN_ALPHA <= p < DOUBT:
        outcome = "inconclusive"
    return {
        **row,
        "outcomes": {**row["outcomes"], "EC301": outcome},
        "p_values": {**row["p_values"], "EC301": p},
        "outcome": "failed" if outcome == "failed" else row["outcome"],
        "seconds": row["seconds"] + drift["seconds"],
    }


def achieved(certificates: list[Row]) -> list[str]:
    """Return CA, BA and attack success by attack and architecture."""
    titles = ("attack", "architecture", "n", "CA", "BA", "ASR", "least ASR", "ASR-B", "seconds")
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for kind in (*CLEAN, *ATTACKS):
        for architecture in zoo.PRETRAINING:
            own = [
                r for r in certificates if (r["kind"], r["architecture"]) == (kind, architecture)
            ]
            if own:
                lines.append(_achieved(kind, architecture, own))
    return lines


def _achieved(kind: str, architecture: str, own: list[Row]) -> str:
    triggers = [trigger for row in own for trigger in row["triggers"]]
    successes = [trigger["attack_success"]["linear"] for trigger in triggers]
    before = [trigger["attack_success_on_clean"]["linear"] for trigger in triggers]
    kept = [r["backdoored_accuracy"]["linear"] for r in own if r["backdoored_accuracy"]]
    cells = (
        f"{kind}: {SUMMARIES[kind]}",
        architecture,
        str(len(own)),
        _mean([row["clean_accuracy"]["linear"] for row in own]),
        _mean(kept),
        _mean(successes),
        f"{min(successes):.3f}" if successes else "",
        _mean(before),
        f"{statistics.median(row['seconds'] for row in own):.0f}",
    )
    return f"| {' | '.join(cells)} |"


def verdicts(scans: Scans) -> list[str]:
    """Return TP, FP, FN, TN and accuracy by attack and architecture."""
    titles = ("attack", "architecture", "targets", "TP", "FP", "FN", "TN", "accuracy", "seconds")
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for kind in ATTACKS:
        for architecture in zoo.PRETRAINING:
            same = [row for row in scans.values() if row["architecture"] == architecture]
            own = [row for row in same if row["kind"] == kind]
            if own:
                clean = [row for row in same if row["kind"] in CLEAN]
                lines.append(_verdict(kind, architecture, own, clean))
    return lines


def _verdict(kind: str, architecture: str, own: list[Row], clean: list[Row]) -> str:
    hits, alarms = sum(map(_failed, own)), sum(map(_failed, clean))
    right = hits + len(clean) - alarms
    members = (zoo.Member(architecture, kind, row["seed"]) for row in own)
    targets = {stamp.target for member in members for stamp in member.recipe.attack.triggers}  # type: ignore[union-attr]
    cells = (
        kind,
        architecture,
        ", ".join(map(str, sorted(targets))),
        str(hits),
        str(alarms),
        str(len(own) - hits),
        str(len(clean) - alarms),
        f"{right / (len(own) + len(clean)):.3f}",
        f"{statistics.median(row['seconds'] for row in own):.0f}",
    )
    return f"| {' | '.join(cells)} |"


def pooled(found: list[Row]) -> list[str]:
    """Return the rates over all encoders, for patch attacks and for the rest."""
    clean = [row for row in found if row["kind"] in CLEAN]
    alarms = sum(map(_failed, clean))
    lines = [
        "| attacks | failed | clean that failed | accuracy | AUROC |",
        "| --- | --- | --- | --- | --- |",
    ]
    groups = {"patches": zoo.PATCHES, "others": (*zoo.OTHERS, *zoo.LATER), "all": ATTACKS}
    for title, kinds in groups.items():
        own = [row for row in found if row["kind"] in kinds]
        hits = sum(map(_failed, own))
        right = hits + len(clean) - alarms
        cells = (
            title,
            share(hits, len(own)),
            share(alarms, len(clean)),
            share(right, len(own) + len(clean)),
            area([_suspicion(row) for row in own], [_suspicion(row) for row in clean]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def by_check(found: list[Row]) -> list[str]:
    """Return how many encoders of each kind each check fails."""
    checks = sorted({check for row in found for check in row["outcomes"]})
    lines = [f"| encoders | n | {' | '.join(checks)} |", f"|{' --- |' * (len(checks) + 2)}"]
    for kind in (*CLEAN, *ATTACKS):
        own = [row for row in found if row["kind"] == kind]
        fired = [str(sum(r["outcomes"].get(c) == "failed" for r in own) or "") for c in checks]
        lines.append(f"| {' | '.join([kind, str(len(own)), *fired])} |")
    return lines


def wrong(found: list[Row]) -> list[str]:
    """Return the encoders that the suite is wrong about."""
    lines = [
        f"- {', '.join(map(str, _key(row)))}: {row['outcome']}"
        + "".join(f", {c} p {p:.2g}" for c, p in row["p_values"].items() if p is not None)
        for row in sorted(found, key=_key)
        if _failed(row) == (row["kind"] in CLEAN)
    ]
    return lines or ["None."]


def _failed(row: Row) -> bool:
    return bool(row["outcome"] == "failed")


def _suspicion(row: Row) -> float:
    """Return the suite's score: the surprise of its most surprised check."""
    return max((surprise(p) for p in row["p_values"].values()), default=0.0)


def _mean(values: list[float]) -> str:
    return f"{statistics.fmean(values):.3f}" if values else ""


def _key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["architecture"], row["kind"], row["seed"]
