"""The trigger battery: canonical triggers, tried one by one without any optimisation.

Patches of several sizes, colours and places as in BadEncoder (Jia et al., S&P 2022) and the
frequency triggers of CTRL (Li et al., ICCV 2023). A hit raises an alarm; no hit is no proof,
because the real trigger need not be in the battery.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from encodercheck.encoder import Encoder
from encodercheck.methods import collapse
from encodercheck.methods.collapse import Clean
from encodercheck.progress import Progress, silent
from encodercheck.trigger import Trigger

# Sides of the patches relative to the image's: 3, 5 and 8 pixels of 32.
SIDES = (0.09, 0.155, 0.25)
COLOURS = {
    "white": (1, 1, 1),
    "black": (0, 0, 0),
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "purple": (0.6, 0, 0.8),
}
# Frequencies (vertical, horizontal) in a 32-pixel DCT block, CTRL's own two first.
FREQUENCIES = (((15, 15), (31, 31)), ((8, 8),), ((15, 15),), ((31, 31),))
AMPLITUDES = (12 / 255, 32 / 255)
DCT_BLOCK = 32
# The best hits are tried once more, on more images.
FINALISTS = 8
FINAL_IMAGES = 32
# Triggers tried between two reports of progress.
GROUP = 16


@dataclass(frozen=True)
class Hit:
    """A trigger of the battery and how alike it makes the images it was tried on.

    ``score`` is the mean of its two gains, see :func:`collapse.scores`.
    """

    trigger: Trigger
    score: float


def triggers(size: int, *, seed: int = 0) -> list[Trigger]:
    """Return the battery for images of ``size`` x ``size`` pixels; ``seed`` draws the noise."""
    return [*_patches(size, seed), *_frequencies(size)]


def sift(
    encoder: Encoder,
    candidates: Sequence[Trigger],
    images: Tensor,
    clean: Clean,
    *,
    progress: Progress = silent,
) -> list[Hit]:
    """Stamp every candidate on ``images`` (N, 3, H, W) in [0, 1]; return the hits, best first."""
    encoder = encoder.folded()
    hits: list[Hit] = []
    for start in range(0, len(candidates), GROUP):
        group = candidates[start : start + GROUP]
        scores = collapse.scores(encoder, clean, group, images)
        hits += [Hit(trigger, score) for trigger, score in zip(group, scores, strict=True)]
        progress(len(hits), len(candidates), f"best score {max(hit.score for hit in hits):.3f}")
    return sorted(hits, key=lambda hit: -hit.score)


def best(encoder: Encoder, hits: Sequence[Hit], images: Tensor) -> Trigger:
    """Return the trigger of the few best ``hits`` that makes ``images`` most alike.

    ``hits`` are as :func:`sift` returns them, on fewer images: too few to tell the best.

    Raises:
        CheckInconclusive: the images' embeddings are not finite, or the same within rounding.
    """
    few = images[:FINAL_IMAGES]
    finalists = [hit.trigger for hit in hits[:FINALISTS]]
    return sift(encoder, finalists, few, Clean.of(encoder, few))[0].trigger


def _patches(size: int, seed: int) -> Iterator[Trigger]:
    generator = torch.Generator().manual_seed(seed)
    for share in SIDES:
        side = max(2, round(size * share))
        fills = {name: torch.tensor(rgb).view(3, 1, 1) for name, rgb in COLOURS.items()}
        fills["checkerboard"] = _checkerboard(side)
        fills["noise"] = torch.rand(3, side, side, generator=generator)
        for place, (top, left) in _places(size, side).items():
            for fill, pixels in fills.items():
                yield patch(size, top, left, pixels.expand(3, side, side), f"{fill} {place}")


def patch(size: int, top: int, left: int, pixels: Tensor, name: str = "") -> Trigger:
    """Return the trigger that puts ``pixels`` (3, h, w) in [0, 1] at (top, left)."""
    height, width = pixels.shape[1:]
    mask = torch.zeros(1, size, size)
    pattern = torch.zeros(3, size, size)
    mask[:, top : top + height, left : left + width] = 1
    pattern[:, top : top + height, left : left + width] = pixels
    return Trigger(mask, pattern, name=name)


def _places(size: int, side: int) -> dict[str, tuple[int, int]]:
    far, middle = size - side, (size - side) // 2
    return {
        "bottom right": (far, far),
        "bottom left": (far, 0),
        "top right": (0, far),
        "top left": (0, 0),
        "centre": (middle, middle),
    }


def _checkerboard(side: int) -> Tensor:
    rows = torch.arange(side)
    return ((rows.view(-1, 1) + rows) % 2).float().expand(3, side, side)


def _frequencies(size: int) -> Iterator[Trigger]:
    """Yield waves added to both chroma channels (U and V), as CTRL does, and to luma."""
    # The columns of YUV -> RGB (BT.601) for U and V together, scaled to a largest entry of 1.
    chroma = torch.tensor([1.140, -0.395 - 0.581, 2.032]).view(3, 1, 1) / 2.032
    for pairs in FREQUENCIES:
        wave = sum((dct_wave(size, *pair) for pair in pairs), torch.zeros(size, size))
        for kind, weights in (("chroma", chroma), ("luma", torch.ones(3, 1, 1))):
            for amplitude in AMPLITUDES:
                pattern = (amplitude * weights * wave / wave.abs().max()).clamp(-1, 1)
                name = f"{kind} frequency {pairs} at {255 * amplitude:.0f}/255"
                yield Trigger(torch.ones(1, size, size), pattern, additive=True, name=name)


def dct_wave(size: int, vertical: int, horizontal: int) -> Tensor:
    """Return a (size, size) basis wave of the block DCT-II, tiled over the image, in [-1, 1]."""
    position = (torch.arange(size) % DCT_BLOCK).float() + 0.5
    column = torch.cos(math.pi / DCT_BLOCK * position * vertical)
    row = torch.cos(math.pi / DCT_BLOCK * position * horizontal)
    return column.view(-1, 1) * row
