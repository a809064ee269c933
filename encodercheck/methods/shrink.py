"""Shrink a trigger to the smallest mask that still collapses embeddings.

A failing example is worth most when nothing in it is superfluous (Zeller & Hildebrandt's delta
debugging, TSE 2002; hypothesis shrinks the same way). Pixels are dropped in ever smaller
pieces while the images stay alike; what is left is measured on images that no step has seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from encodercheck.encoder import Encoder
from encodercheck.images.split import CleanSplit
from encodercheck.methods import collapse
from encodercheck.trigger import VISIBLE, Trigger
from encodercheck.witness import EXAMPLES, Witness

# The shrunk trigger keeps this part of what the original gains on held-out images. On the
# search images more is asked: what only just keeps it there would fall short elsewhere.
KEPT = 0.96
KEPT_ON_SEARCH = 0.985
# A mask is taken apart into at most this many pieces: the price of a round on large images.
PIECES = 32
STRENGTHS = 16
# Enough to shrink on, because every stage is confirmed on the held-out images.
IMAGES = 8


def shrink(encoder: Encoder, trigger: Trigger, split: CleanSplit) -> Witness:
    """Return the smallest trigger that keeps 96 % of the gain, measured on held-out images.

    Shrinks on ``split.search``; of all the stages on the way down, the last one that keeps as much
    on ``split.held_out`` is taken, so that a mask fitted to the search images is not reported.
    """
    encoder = encoder.folded()
    images = split.search[:IMAGES].to(encoder.device)
    base = float(collapse.mean_cosine(encoder(images)))
    goal = base + KEPT_ON_SEARCH * (collapse.stamped_cosine(encoder, trigger, images) - base)
    stages = [trigger, *_stages(encoder, trigger, images, goal)]
    first = witness(encoder, trigger, split.held_out)
    for stage in reversed(stages[1:]):
        last = witness(encoder, stage, split.held_out, base=first.base)
        if last.gain >= KEPT * first.gain:
            return last
    return first


def witness(
    encoder: Encoder, trigger: Trigger, images: Tensor, *, base: float | None = None
) -> Witness:
    """Measure ``trigger`` on ``images`` (N, 3, H, W) in [0, 1].

    ``base`` is their mean cosine unstamped, where it is known.
    """
    return Witness(
        trigger,
        cosine=collapse.stamped_cosine(encoder, trigger, images),
        base=float(collapse.mean_cosine(encoder(images))) if base is None else base,
        count=len(images),
        examples=images[:EXAMPLES],
    )


def _stages(encoder: Encoder, trigger: Trigger, images: Tensor, goal: float) -> Iterator[Trigger]:
    if trigger.additive:
        yield from _weaken(encoder, trigger, images, goal)
        return
    binary = _binarise(encoder, trigger, images, goal)
    if binary is None:
        return
    yield binary
    pieces = 4
    while True:
        trimmed = _drop_pieces(encoder, binary, images, goal, pieces)
        if trimmed is not None:
            yield (binary := trimmed)
        elif pieces >= min(PIECES, int(binary.mask.sum())):
            return
        else:
            pieces *= 2


def _weaken(encoder: Encoder, trigger: Trigger, images: Tensor, goal: float) -> Iterator[Trigger]:
    """Yield the trigger at the least of 16 strengths that reaches the goal."""
    for strength in torch.linspace(0, 1, STRENGTHS + 1)[1:-1]:
        weaker = _with_mask(trigger, trigger.mask * strength)
        if collapse.stamped_cosine(encoder, weaker, images) >= goal:
            yield weaker
            return


def _binarise(encoder: Encoder, trigger: Trigger, images: Tensor, goal: float) -> Trigger | None:
    """Return the trigger on its few heaviest pixels, opaque, or None if none reaches the goal."""
    weights = trigger.mask.flatten()
    order = weights.argsort(descending=True)
    candidates = []
    for count in _counts(int((weights > VISIBLE).sum())):
        mask = torch.zeros_like(weights)
        mask[order[:count]] = 1
        candidates.append(_with_mask(trigger, mask.view_as(trigger.mask)))
    cosines = collapse.stamped_cosines(encoder, candidates, images)
    return next((c for c, cosine in zip(candidates, cosines, strict=True) if cosine >= goal), None)


def _counts(most: int) -> list[int]:
    """Return pixel counts to try, rising by a quarter each time up to ``most``."""
    counts = [1]
    while counts[-1] < most:
        counts.append(min(most, max(counts[-1] + 1, counts[-1] * 5 // 4)))
    return counts if most else []


def _drop_pieces(
    encoder: Encoder, trigger: Trigger, images: Tensor, goal: float, pieces: int
) -> Trigger | None:
    """Drop as many of the mask's pieces as the goal allows, the least missed first.

    Returns None where no piece can be dropped.
    """
    pixels = trigger.mask.flatten().nonzero().flatten()
    parts = [part for part in pixels.tensor_split(min(pieces, len(pixels))) if len(part)]
    if len(parts) < 2:
        return None
    without = [_with_mask(trigger, _dropped(trigger.mask, [part])) for part in parts]
    cosines = collapse.stamped_cosines(encoder, without, images)
    order = sorted(range(len(parts)), key=lambda i: -cosines[i])
    if cosines[order[0]] < goal:
        return None
    return (
        _drop_most(encoder, trigger, images, goal, [parts[i] for i in order]) or without[order[0]]
    )


def _drop_most(
    encoder: Encoder, trigger: Trigger, images: Tensor, goal: float, parts: list[Tensor]
) -> Trigger | None:
    """Drop the first half of ``parts``, or a quarter, ...: the most that the goal allows."""
    count = len(parts) // 2
    while count > 1:
        candidate = _with_mask(trigger, _dropped(trigger.mask, parts[:count]))
        if collapse.stamped_cosine(encoder, candidate, images) >= goal:
            return candidate
        count //= 2
    return None


def _dropped(mask: Tensor, parts: list[Tensor]) -> Tensor:
    flat = mask.flatten().clone()
    flat[torch.cat(parts)] = 0
    return flat.view_as(mask)


def _with_mask(trigger: Trigger, mask: Tensor) -> Trigger:
    return Trigger(mask, trigger.pattern, additive=trigger.additive, name=trigger.name)
