"""Two other ways to a verdict that needs no clean encoders, measured and not built in.

*Anomaly*: how much further the free search goes than searches of the same budget that collapse
embeddings onto given clean ones, in robust deviations of these (as Neural Cleanse does over labels;
Wang et al., S&P 2019). *Shift* and *spread*: how far the inverted trigger takes whitened embeddings
from where clean ones are, and how little of their spread it leaves (after LoREx and others, since
the size of a mask alone is known to fail on ViTs).
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import zoo
from encodercheck.encoder import Encoder
from encodercheck.harness.state import ScanState
from encodercheck.intervals import area, share, surprise
from encodercheck.methods import ascent, collapse, families, inversion
from encodercheck.methods.null import GAIN
from encodercheck.trigger import Trigger

TARGETS = 12
STEPS = 24
COMPONENTS = 32
STATISTICS = {
    "anomaly": "(a) free search against targeted ones, anomaly index",
    "shift": "(c) whitened shift under the trigger, in 99 % quantiles of clean distances",
    "spread": "(c) whitened spread under the trigger, -log",
}

Row = dict[str, Any]


def measure(state: ScanState) -> Row:
    """Return the three statistics of an encoder, with what they are made of."""
    encoder, split = state.encoder.folded(), state.images.split()
    base = collapse.base_cosine(encoder, split.held_out)

    def gains(triggers: Sequence[Trigger]) -> list[float]:
        cosines = collapse.stamped_cosines(encoder, triggers, split.held_out)
        return [collapse.gain(cosine, base) for cosine in cosines]

    effort = replace(state.profile, steps=STEPS)
    found = inversion.invert(encoder, split.search, profile=effort, seed=state.seed)
    free = gains([found.trigger])[0]
    targeted = gains(towards_clean(encoder, split.search, state))
    shift, spread = whitened(
        encoder(split.search), encoder(split.held_out), encoder(found.trigger.stamp(split.held_out))
    )
    return {
        "free": free,
        "targeted": targeted,
        "anomaly": anomaly(free, targeted),
        "shift": shift,
        "spread": spread,
    }


def towards_clean(encoder: Encoder, images: Tensor, state: ScanState) -> list[Trigger]:
    """Return the best trigger of each target: half are clean embeddings, half are clusters."""
    generator = torch.Generator().manual_seed(state.seed)
    unit = functional.normalize(encoder(images), dim=1)
    alone = unit[torch.randperm(len(unit), generator=generator)[: TARGETS // 2]]
    targets = torch.cat([alone, clusters(unit, TARGETS - len(alone), generator)])
    hits = inversion.sift(encoder, images, state.profile, seed=state.seed)
    warm = inversion.best_places(hits, TARGETS // 2)
    found = []
    for make in (families.boxes, families.pixel_masks):
        family = make(
            warm,
            TARGETS,
            encoder.image_size,
            budget=inversion.BUDGET,
            generator=generator,
            device=encoder.device,
        )
        ascent.ascend(
            encoder,
            images,
            family,
            steps=STEPS,
            batch=state.profile.batch,
            generator=generator,
            objective=ascent.towards(targets),
        )
        triggers = family.triggers()
        near = [
            float(functional.cosine_similarity(encoder(t.stamp(images)), target, dim=1).mean())
            for t, target in zip(triggers, targets, strict=True)
        ]
        found.append(list(zip(near, triggers, strict=True)))
    return [max(pair, key=lambda one: one[0])[1] for pair in zip(*found, strict=True)]


def clusters(unit: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return the centres (count, D) of a spherical k-means over unit embeddings (N, D)."""
    centres = unit[torch.randperm(len(unit), generator=generator)[:count]]
    for _ in range(10):
        own = (unit @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, own, unit)
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, sums, centres)
        centres = functional.normalize(centres, dim=1)
    return centres


def anomaly(free: float, targeted: Sequence[float]) -> float:
    """Return the free search's distance from the targeted ones, in robust deviations."""
    scores = [GAIN.forward(gain) for gain in targeted]
    middle = statistics.median(scores)
    deviation = 1.4826 * statistics.median(abs(score - middle) for score in scores)
    return (GAIN.forward(free) - middle) / max(deviation, 0.05)


def whitened(reference: Tensor, clean: Tensor, stamped: Tensor) -> tuple[float, float]:
    """Return shift and spread of ``stamped`` in the space in which ``reference`` is white.

    All are embeddings (N, D); only the leading components of ``reference`` count.
    """
    middle = reference.mean(0)
    _, lengths, axes = torch.linalg.svd(reference - middle, full_matrices=False)
    count = min(COMPONENTS, int((lengths > 1e-4 * lengths[0]).sum()))
    scale = axes[:count].T / lengths[:count] * len(reference) ** 0.5
    before, after = ((embeddings - middle) @ scale for embeddings in (clean, stamped))
    shift = float(after.norm(dim=1).median() / before.norm(dim=1).quantile(0.99))
    return shift, -math.log(max(float(after.var(0).mean() / before.var(0).mean()), 1e-6))


def table(rows: list[Row], scans: list[Row]) -> list[str]:
    """Return how each does with one limit for all, set on even seeds; beside it what decides."""
    if not rows:
        return ["Not measured."]
    lines = [
        "| statistic | limit | clean that failed | patch attacks that failed | other attacks that "
        f"failed | AUROC | {' | '.join(f'AUROC, {a}' for a in zoo.PRETRAINING)} |",
        f"|{' --- |' * (6 + len(zoo.PRETRAINING))}",
    ]
    for name, title in STATISTICS.items():
        limit = best_limit([row for row in rows if not row["reported"]], name)
        reported = [(row, row[name], row[name] > limit) for row in rows if row["reported"]]
        lines.append(_line(title, f"{limit:.3g}", reported))
    decided = [
        (row, surprise(row["values"]["EC202"]["p"]), _fails(row))
        for row in scans
        if row["reported"] and row["values"]["EC202"]["p"] is not None
    ]
    lines.append(_line("(b) EC202 against clean encoders", "p", decided))
    return lines


def best_limit(rows: list[Row], name: str) -> float:
    """Return the limit in the middle of the widest gap of those that err least."""
    values = sorted(row[name] for row in rows)
    middles = [(low + high) / 2 for low, high in itertools.pairwise(values)]

    def errors(limit: float) -> int:
        return sum((row[name] > limit) != (row["kind"] != "clean") for row in rows)

    least = min(map(errors, middles))
    return max(
        (limit for limit in middles if errors(limit) == least),
        key=lambda limit: min(abs(value - limit) for value in values),
    )


def _line(title: str, limit: str, judged: list[tuple[Row, float, bool]]) -> str:
    def failed(kinds: Sequence[str]) -> str:
        own = [fails for row, _, fails in judged if row["kind"] in kinds]
        return share(sum(own), len(own))

    def under(architecture: str | None) -> str:
        own = [one for one in judged if architecture in (None, one[0]["architecture"])]
        poisoned, clean = (
            [score for row, score, _ in own if (row["kind"] != "clean") is kind]
            for kind in (True, False)
        )
        return area(poisoned, clean)

    areas = [under(architecture) for architecture in (None, *zoo.PRETRAINING)]
    cells = [title, limit, failed(["clean"]), failed(zoo.PATCHES), failed(zoo.OTHERS), *areas]
    return f"| {' | '.join(cells)} |"


def _fails(row: Row) -> bool:
    return bool(row["outcomes"]["EC202"] == "failed")
