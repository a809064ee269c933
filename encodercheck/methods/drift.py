"""Reconstruction drift: how much a trigger spoils what an embedding says of the rest of the image.

DeDe (Hou, Li & Yao, CVPR 2025) finds images that carry a trigger. Turned on the encoder, it asks of
a trigger that was found by other means: are the patches that it does **not** touch reconstructed
worse once it is stamped? A square cannot be drawn by a decoder that never saw one; that the square
is not reconstructed says nothing, so its patches are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encodercheck.methods.dede import Dede
from encodercheck.trigger import VISIBLE, Trigger

# Random triggers that a found one is held against.
RANDOM = 4


@dataclass(frozen=True)
class Drift:
    """What a trigger does to the reconstruction of untouched patches.

    ``shift`` is the median over images of how much its score rises; ``flagged`` the part of the
    images whose score exceeds the threshold of unstamped ones.
    """

    shift: float
    flagged: float


def drift(dede: Dede, images: Tensor, triggers: list[Trigger]) -> list[Drift]:
    """Return the drift under each trigger, on clean images (N, 3, H, W) in [0, 1].

    Decoder and score get the unstamped images: only the embedding is the stamped one's. A trigger
    that touches every patch, as faint ones do, is scored on all of them.
    """
    grid = dede.grid
    hidden = (1 - dede.settings.test_masks(grid)).sum(0)
    found = []
    for trigger in triggers:
        untouched = 1 - grid.touched(trigger.mask, visible=VISIBLE).cpu()
        # Patches that the decoder is shown in every pass tell nothing.
        patches = untouched if (untouched * hidden).any() else None
        before = dede.scores_of(dede.inspect(images, patches=patches))
        stamped = trigger.stamp(images)
        after = dede.scores_of(dede.inspect(stamped, patches=patches, shown=images))
        threshold = dede.threshold_of(before)
        shift = float((after - before).median())
        found.append(Drift(shift, float((after > threshold).float().mean())))
    return found


@dataclass(frozen=True)
class WorstDrift:
    """The drift of the worst of some triggers, and the mean shift of random ones like it."""

    shift: float
    flagged: float
    random: float

    @property
    def excess(self) -> float:
        """What of the shift is the trigger's own, and not any square's of its size."""
        return self.shift - self.random


def worst_drift(dede: Dede, images: Tensor, triggers: list[Trigger], *, seed: int) -> WorstDrift:
    """Return the drift of the worst of ``triggers``, on clean images (N, 3, H, W) in [0, 1]."""
    found = drift(dede, images, triggers)
    worst = max(range(len(found)), key=lambda i: found[i].shift)
    others = drift(dede, images, random_triggers(triggers[worst], RANDOM, seed=seed))
    mean = sum(other.shift for other in others) / RANDOM
    return WorstDrift(found[worst].shift, found[worst].flagged, mean)


def random_triggers(trigger: Trigger, count: int, *, seed: int) -> list[Trigger]:
    """Return triggers like ``trigger``, not searched for: same size and kind, random pixels.

    Every other one has a single colour; the mask is moved round the image, the first one's is not.
    """
    generator = torch.Generator().manual_seed(seed)
    low, high = (-1.0, 1.0) if trigger.additive else (0.0, 1.0)
    made = []
    for number in range(count):
        shape = (3, 1, 1) if number % 2 else tuple(trigger.pattern.shape)
        pixels = (low + (high - low) * torch.rand(shape, generator=generator)).expand(
            trigger.pattern.shape
        )
        if trigger.additive:
            pixels = pixels * trigger.pattern.abs().max().cpu()
        height, width = trigger.size
        down, right = (
            int(torch.randint(side, (), generator=generator)) * (number > 0)
            for side in (height, width)
        )
        mask = trigger.mask.cpu().roll((down, right), (1, 2))
        made.append(Trigger(mask, pixels.contiguous(), additive=trigger.additive))
    return made
