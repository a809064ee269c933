"""Seconds of a trigger search: against the published loop, inside the encoder, and by size.

    python -m benchmarks.inversion_speed

takes encoders of the zoo (built where they are missing) and writes docs/inversion-speed.md and
.json. The machine should have nothing else to do. ``--reference-seconds`` stops the published loop
early, and the table says where it did.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Threads that spin while they wait slow each other down as soon as a core is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks import reference, zoo
from benchmarks.inside import inside
from encodercheck import load
from encodercheck.cache import atomic_write_text
from encodercheck.encoder import Encoder
from encodercheck.fixtures.network import as_encoder, new_network
from encodercheck.fixtures.recipes import ResNet
from encodercheck.images import procedural
from encodercheck.methods import ascent, collapse, families, inversion
from encodercheck.nulls import Nulls
from encodercheck.preprocessing import Preprocessing
from encodercheck.profiles import PROFILES
from encodercheck.weights.resnet import ResNet as Network
from encodercheck.weights.spec import ResNetSpec

PAGE = Path(__file__).parents[1] / "docs" / "inversion-speed.md"
PROFILE = PROFILES["standard"]
KEY = "EC202.gain"
SEEDS = (1, 3, 7, 11)
KINDS = ("clean", "white", "noise")
TITLES = (
    "encoders",
    "n",
    "ours, median s",
    "loop, median s",
    "ratio, median",
    "least",
    "inside, median",
    "ours right",
    "loop right",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference-seconds", type=float, default=600.0)
    options = parser.parse_args()
    pairs = [compare(member, options.reference_seconds) for member in chosen()]
    result = {
        "threads": torch.get_num_threads(),
        "reference_seconds": options.reference_seconds,
        "pairs": pairs,
        "curve": list(curve()),
    }
    atomic_write_text(PAGE.with_suffix(".json"), json.dumps(result, indent=1) + "\n")
    atomic_write_text(PAGE, page(result))


def chosen() -> Iterator[zoo.Member]:
    """Yield the encoders that both searches are timed on."""
    for member in zoo.members():
        if member.seed in SEEDS and member.kind in KINDS:
            yield member


def compare(member: zoo.Member, limit_seconds: float) -> dict[str, Any]:
    """Time both searches on one encoder, with the verdict of each."""
    encoder = load(str(member.build().path), device="cpu")
    size = encoder.image_size
    images = procedural.images(PROFILE.search + PROFILE.held_out, size=size, seed=member.seed)
    search, held_out = images[: PROFILE.search], images[PROFILE.search :]
    null = Nulls.shipped().find(
        KEY,
        scale="gain",
        architecture=encoder.provenance.architecture,
        image_size=size,
        structure=encoder.structure,
    )
    inversion.invert(encoder, search, profile=PROFILES["quick"], limit=0.5)  # warm up
    with inside() as spent:
        started = time.perf_counter()
        folded = encoder.folded()
        found = inversion.invert(folded, search, profile=PROFILE, limit=null.decides)
        base = collapse.base_cosine(folded, held_out)
        cosine = collapse.stamped_cosine(folded, found.trigger, held_out)
        seconds = time.perf_counter() - started
    more = procedural.images(1000, size=size, seed=10_000 + member.seed)
    loop = reference.invert(encoder, more, seed=member.seed, seconds=limit_seconds)
    row = {
        "architecture": member.architecture,
        "kind": member.kind,
        "seed": member.seed,
        "seconds": seconds,
        "inside": spent[0] / seconds,
        "steps": found.steps,
        "ended": found.ended,
        "fails": collapse.gain(cosine, base) > null.limit,
        "loop_seconds": loop.seconds,
        "loop_steps": loop.steps,
        "loop_pl1": loop.pl1,
        "loop_fails": loop.backdoored,
    }
    print(json.dumps(row), flush=True)
    return row


def curve() -> Iterator[dict[str, Any]]:
    """Yield the milliseconds of a step by pixels, by parameters and by restarts."""
    for size in (16, 32, 64, 128):
        yield step("pixels", size**2, resnet(16, size), 8)
    for width in (8, 16, 32, 64):
        encoder = resnet(width, 32)
        yield step("parameters", encoder.parameters, encoder, 8)
    for restarts in (4, 8, 16, 32):
        yield step("restarts", restarts, as_encoder(new_network(ResNet()).eval(), "cpu"), restarts)


def resnet(width: int, size: int) -> Encoder:
    """Return an untrained ResNet like the narrow one, for images of any size."""
    widths = tuple(width * 2**stage for stage in range(4))
    spec = ResNetSpec("basic", (1,) * 4, widths, stem_kernel=3, stem_stride=2, maxpool=False)
    return Encoder(Network(spec), preprocessing=Preprocessing(image_size=size))


def step(what: str, value: int, encoder: Encoder, restarts: int) -> dict[str, Any]:
    """Time a step of the search over boxes: the least of five."""
    encoder = encoder.folded()
    size, generator = encoder.image_size, torch.Generator().manual_seed(0)
    family = families.boxes(
        [], restarts, size, budget=0.03, generator=generator, device=encoder.device
    )
    images = procedural.images(PROFILE.batch, size=size, seed=0)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        ascent.scores_and_gradients(encoder, images, family)
        seconds.append(time.perf_counter() - started)
    return {"what": what, "value": value, "milliseconds": 1000 * min(seconds)}


def page(result: dict[str, Any]) -> str:
    """Return the page."""
    pairs = result["pairs"]
    stopped = sum(pair["loop_seconds"] >= result["reference_seconds"] for pair in pairs)
    lines = [
        "# How long trigger inversion takes",
        "",
        f"Made by `python -m benchmarks.inversion_speed`, {result['threads']} threads. The",
        "search of EC202 with its battery and the scoring on held-out images, against the",
        "published DECREE loop on the same encoder, one after the other in one process. *Inside*",
        "is the share of our seconds that is spent in the encoder's forward and backward passes.",
        f"The loop was stopped at {result['reference_seconds']:.0f} s where it had not ended",
        f"({stopped} of {len(pairs)}).",
        "",
        f"| {' | '.join(TITLES)} |",
        f"|{' --- |' * len(TITLES)}",
    ]
    groups = {
        **{a: [p for p in pairs if p["architecture"] == a] for a in zoo.PRETRAINING},
        "clean": [p for p in pairs if p["kind"] == "clean"],
        "poisoned": [p for p in pairs if p["kind"] != "clean"],
        "same verdict": [p for p in pairs if p["fails"] == p["loop_fails"]],
        "all": pairs,
    }
    lines += [_group(title, own) for title, own in groups.items() if own]
    for what in ("pixels", "parameters", "restarts"):
        lines += ["", f"## By {what}", "", f"| {what} | ms a step |", "| --- | --- |"]
        lines += [
            f"| {row['value']:,} | {row['milliseconds']:.1f} |"
            for row in result["curve"]
            if row["what"] == what
        ]
    return "\n".join([*lines, ""])


def _group(title: str, own: list[dict[str, Any]]) -> str:
    ratios = [pair["loop_seconds"] / pair["seconds"] for pair in own]
    right = sum(pair["fails"] == (pair["kind"] != "clean") for pair in own)
    loop_right = sum(pair["loop_fails"] == (pair["kind"] != "clean") for pair in own)
    cells = (
        title,
        str(len(own)),
        f"{statistics.median(pair['seconds'] for pair in own):.2f}",
        f"{statistics.median(pair['loop_seconds'] for pair in own):.1f}",
        f"{statistics.median(ratios):.1f}",
        f"{min(ratios):.1f}",
        f"{statistics.median(pair['inside'] for pair in own):.2f}",
        f"{right} of {len(own)}",
        f"{loop_right} of {len(own)}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
