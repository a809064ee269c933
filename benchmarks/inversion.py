"""Trigger inversion on the zoo: verdicts, and the published DECREE loop on the same encoders.

    python -m benchmarks.zoo --jobs 2                 # builds the encoders, see there
    python -m benchmarks.inversion nulls              # clean encoders of even seeds: nulls.json
    python -m benchmarks.inversion nulls -k drift     # and what depends on where searches stop
    python -m benchmarks.inversion structures         # what each of its architectures computes
    python -m benchmarks.inversion scans              # the suite on every encoder
    python -m benchmarks.inversion triggers           # what the attackers' own triggers gain
    python -m benchmarks.inversion reference          # the published loop on those reported on
    python -m benchmarks.inversion stopping           # searches that stop early, and full ones
    python -m benchmarks.inversion alternatives       # verdicts that need no clean encoders
    python -m benchmarks.inversion table              # docs/inversion.md

Rows go to docs/inversion.json one by one, and what is there is not measured again: a run that was
killed goes on where it was. ``--part 1/2`` shares the work between processes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

# Threads that spin while they wait slow each other down as soon as a core is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks import alternatives, early_stopping, kinds, reference, zoo
from benchmarks.rows import Rows
from encodercheck import fixtures, load, scanning
from encodercheck.fixtures import network
from encodercheck.harness.state import ScanState
from encodercheck.images import procedural
from encodercheck.methods import collapse
from encodercheck.nulls import SHIPPED, CleanEncoder, Nulls
from encodercheck.report import Report

ROOT = Path(__file__).parents[1]
ROWS = Rows(ROOT / "docs" / "inversion.json")
CHECKS = {"EC102": "gain", "EC201": "pl1", "EC202": "gain", "EC203": "gain", "EC204": "gain"}
PROFILE = "standard"
# Clean encoders that were trained on images like those of a scan, and by other methods. The
# fixtures of other seeds are reported on elsewhere.
EMBEDDED = {"clean": (100, 101, 102), "clean-vit": (100, 101, 102), "clean-mae": (100, 101)}
# Of transformers, further kinds of pre-training, by their names in ``kinds``.
FURTHER = {
    "supervised": (100, 101, 102),
    "MoCo": (100,),
    "untrained": (100,),
    "MAE, longer": (100, 101, 102),
}
# Scanning images of the reference: as many as an epoch of the published loop.
REFERENCE_IMAGES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["nulls", "structures", *KINDS, "table"])
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(zoo.SEEDS))
    parser.add_argument("-k", dest="keyword", help="for nulls: only the checks that match")
    parser.add_argument("--named", default="", help="for nulls: only encoders with this in a name")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for the reference")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    index, count = map(int, options.part.split("/"))
    if options.action == "table":
        from benchmarks.inversion_table import write

        write(ROWS.read())
        return
    if options.action == "nulls":
        make_nulls(index - 1, count, options.keyword, options.named)
        return
    if options.action == "structures":
        fill_in_structures()
        return
    chosen = (member for member in zoo.members() if member.seed in options.seeds)
    if options.action in ("reference", "triggers"):
        chosen = (member for member in chosen if member.reported)
    for number, member in enumerate(chosen):
        if number % count == index - 1:
            kind, measure = KINDS[options.action]
            ROWS.add(kind, member, partial(measure, member, options.seconds))


def make_nulls(index: int, count: int, keyword: str | None, named: str = "") -> None:
    """Measure the clean encoders of even seeds, and others of the embedded world; ship the values.

    The file is added to: begin with an empty one, ``{"encoders": []}`` and so on, for a new start.
    With a ``keyword`` only the checks that match are measured, on the encoders that are there, with
    the triggers that a scan's searches end with: ``-k drift``, once all the others are known.
    """
    clean = [m for m in zoo.members() if m.kind == "clean" and not m.reported]
    models = {f"{m.architecture}, clouds, seed {m.seed}": (m.build, m.seed) for m in clean}
    for kind, seeds in EMBEDDED.items():
        for seed in seeds:
            models[f"fixture {kind}@{seed}"] = (partial(fixtures.build, kind, seed=seed), seed)
    for kind, seeds in FURTHER.items():
        for seed in seeds:
            member = kinds.Member("small ViT", kind, seed)
            models[f"small ViT, {kind}, seed {seed}"] = (member.build, seed)
    for number, (name, (build, seed)) in enumerate(models.items()):
        there = any(name == e.name for e in Nulls.read(SHIPPED).encoders)
        if number % count != index or there is not bool(keyword) or named not in name:
            continue
        report = run(build().path, seed, calibrating=True, keyword=keyword)
        encoder = CleanEncoder.of(report, name=name)
        with ROWS.lock:
            known = Nulls.read(SHIPPED)
            before = {e.name: e for e in known.encoders}
            values = {**(before[name].values if there else {}), **encoder.values}
            before[name] = replace(encoder, values=values)
            encoders = tuple(before.values())
            replace(known, encoders=encoders, versions=scanning.versions()).write(SHIPPED)
        print(name, encoder.values, flush=True)


def fill_in_structures() -> None:
    """Write into the null the structures of its architectures, which untrained networks have too.

    They change when ``encodercheck.structure`` does, or PyTorch's operations.
    """
    found = {}
    for pretraining in zoo.PRETRAINING.values():
        untrained = network.new_network(pretraining.network)
        name = str(network.architecture(pretraining.network))
        found[name] = network.as_encoder(untrained, "cpu").structure
    known = Nulls.read(SHIPPED)
    encoders = tuple(replace(e, structure=found[e.architecture]) for e in known.encoders)
    replace(known, encoders=encoders).write(SHIPPED)


def run(path: Path, seed: int, *, calibrating: bool = False, keyword: str | None = None) -> Report:
    """Scan an encoder with default settings and images."""
    state = prepare(path, seed)
    state.calibrating = calibrating
    state.stopping = keyword is not None
    return scanning.run(state, keyword=keyword)


def prepare(path: Path, seed: int) -> ScanState:
    """Return what a scan with default settings works on."""
    return scanning.prepare(path, profile=PROFILE, seed=seed)


def scan(member: zoo.Member, seconds: float) -> dict[str, Any]:
    """Return what the suite says of an encoder."""
    report = run(member.build().path, member.seed).to_dict()
    found = {finding["id"]: finding for finding in report["findings"]}
    values = {}
    for check, name in {**CHECKS, "EC301": "excess_drift"}.items():
        measured = {m["name"]: m["value"] for m in found[check]["measurements"]}
        values[check] = {"value": measured.get(name), "p": measured.get("p_value")}
    return {
        "outcome": report["outcome"],
        "outcomes": {check: finding["outcome"] for check, finding in found.items()},
        "values": values,
        "witnesses": {c: f["message"] for c, f in found.items() if f["outcome"] == "failed"},
        "seconds": report["seconds"],
        "check_seconds": {check: finding["seconds"] for check, finding in found.items()},
    }


def refer(member: zoo.Member, seconds: float) -> dict[str, Any]:
    """Return what the published loop says of an encoder."""
    encoder = load(str(member.build().path), device="cpu")
    size = encoder.image_size
    images = procedural.images(REFERENCE_IMAGES, size=size, seed=10_000 + member.seed)
    found = reference.invert(encoder, images, seed=member.seed, seconds=seconds)
    return {
        "pl1": found.pl1,
        "backdoored": found.backdoored,
        "steps": found.steps,
        "seconds": found.seconds,
        "limit_seconds": seconds if seconds < float("inf") else None,
    }


def stop(member: zoo.Member, seconds: float) -> dict[str, Any]:
    """Return what stopping early changes on an encoder."""
    return early_stopping.measure(prepare(member.build().path, member.seed))


def compare(member: zoo.Member, seconds: float) -> dict[str, Any]:
    """Return the statistics that need no clean encoders."""
    return alternatives.measure(prepare(member.build().path, member.seed))


def stamp(member: zoo.Member, seconds: float) -> dict[str, Any]:
    """Return the gains of the attacker's own triggers on the images of a scan."""
    built = member.build()
    state = prepare(built.path, member.seed)
    images = state.images.held_out_images()
    base = collapse.base_cosine(state.encoder, images)
    cosines = collapse.stamped_cosines(state.encoder, built.triggers(), images)
    return {"gains": [collapse.gain(cosine, base) for cosine in cosines]}


# What is measured of an encoder, and the kind of its rows.
KINDS: dict[str, tuple[str, Callable[[zoo.Member, float], dict[str, Any]]]] = {
    "scans": ("scan", scan),
    "triggers": ("trigger", stamp),
    "reference": ("reference", refer),
    "stopping": ("stopping", stop),
    "alternatives": ("alternative", compare),
}


if __name__ == "__main__":
    main()
