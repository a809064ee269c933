"""Budget inversion: the trigger of at most 3 % of the image that makes embeddings most alike.

Where DECREE (Feng et al., CVPR 2023) looks for the smallest mask at a fixed cosine, this fixes the
mask's L1 size and maximises the mean pairwise cosine. There is no balance to tune between two
losses, so that few steps suffice and many restarts are affordable: some backdoors are found by one
restart in twelve only. Half of the restarts begin at the best hits of the trigger battery.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from encodercheck.encoder import Encoder
from encodercheck.methods import battery, collapse
from encodercheck.methods.adam import Adam
from encodercheck.profiles import Profile
from encodercheck.progress import Progress, silent
from encodercheck.trigger import Trigger, stamp

# The mask's L1 size, as a part of its maximum. 1.5 % loses large triggers.
BUDGET = 0.03
LEARNING_RATE = 0.1
# A gain at which no restart needs to look further.
FOUND = 0.99


@dataclass(frozen=True)
class Inversion:
    """What budget inversion found, best candidate first; cosines are on the search images."""

    candidates: tuple[Trigger, ...]
    cosines: tuple[float, ...]
    base: float
    steps: int

    @property
    def trigger(self) -> Trigger:
        """The candidate that makes the search images most alike."""
        return self.candidates[0]


def invert(
    encoder: Encoder,
    images: Tensor,
    *,
    profile: Profile,
    seed: int = 0,
    budget: float = BUDGET,
    progress: Progress = silent,
) -> Inversion:
    """Search the trigger within ``budget`` that makes ``images`` (N, 3, H, W) in [0, 1] most alike.

    Raises:
        CheckInconclusive: the images' embeddings are not finite, or nearly parallel unstamped.
    """
    encoder = encoder.folded()
    base = collapse.base_cosine(encoder, images)
    images = images.to(encoder.device)
    generator = torch.Generator().manual_seed(seed)
    warm = best_of_battery(encoder, images, profile.restarts // 2, profile, seed=seed)
    masks, patterns, steps = _ascend(
        encoder,
        images,
        *starts(warm, profile.restarts, encoder.image_size, generator),
        steps=profile.steps,
        batch=profile.batch,
        budget=budget,
        found=base + FOUND * (1 - base),
        generator=generator,
        progress=progress,
    )
    candidates = [
        Trigger(mask, pattern, name="inverted")
        for mask, pattern in zip(masks.cpu(), patterns.cpu(), strict=True)
    ]
    cosines = collapse.stamped_cosines(encoder, candidates, images)
    order = sorted(range(len(candidates)), key=lambda i: -cosines[i])
    return Inversion(
        candidates=tuple(candidates[i] for i in order),
        cosines=tuple(cosines[i] for i in order),
        base=base,
        steps=steps,
    )


def best_of_battery(
    encoder: Encoder, images: Tensor, count: int, profile: Profile, *, seed: int
) -> list[Trigger]:
    """Return the ``count`` best patches of the battery, tried on the first few of ``images``."""
    candidates = [t for t in battery.triggers(encoder.image_size, seed=seed) if not t.additive]
    hits = battery.sift(encoder, candidates, images[: profile.battery_images])
    return [hit.trigger for hit in hits[:count]]


def starts(
    warm: Sequence[Trigger], restarts: int, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return masks (R, 1, H, W) and patterns (R, 3, H, W): the warm ones, then random ones.

    A warm mask keeps some weight off its patch, without which no gradient could move it.
    """
    masks = torch.rand(restarts, 1, size, size, generator=generator)
    patterns = torch.rand(restarts, 3, size, size, generator=generator)
    for i, trigger in enumerate(warm):
        masks[i] = 0.9 * trigger.mask + 0.02
        patterns[i] = torch.where(trigger.mask > 0, trigger.pattern, patterns[i])
    return masks, patterns


def project(masks: Tensor, budget: float) -> Tensor:
    """Return the nearest masks (R, 1, H, W) in [0, 1] whose means are at most ``budget``.

    The Euclidean projection on a box and an L1 ball is ``clip(mask - t, 0, 1)``; bisection finds t.
    """
    low = torch.zeros(len(masks), 1, 1, 1, device=masks.device)
    high = masks.amax((1, 2, 3), keepdim=True).clamp_min(0)
    too_large = masks.clamp(0, 1).mean((1, 2, 3), keepdim=True) > budget
    for _ in range(24):
        middle = (low + high) / 2
        over = (masks - middle).clamp(0, 1).mean((1, 2, 3), keepdim=True) > budget
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    return (masks - high * too_large).clamp(0, 1)


def cosines_and_gradients(
    encoder: Encoder, images: Tensor, masks: Tensor, patterns: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each restart's mean cosine (R,), and its gradient in its mask and in its pattern.

    Images are (N, 3, H, W), masks (R, 1, H, W), patterns (R, 3, H, W). Restarts go through the
    encoder in groups that fit its batch size, each with a backward pass of its own, so that memory
    does not grow with their number.
    """
    together = max(1, encoder.batch_size // len(images))
    parts = []
    for group in zip(torch.split(masks, together), torch.split(patterns, together), strict=True):
        mask, pattern = (tensor.detach().requires_grad_() for tensor in group)
        stamped = stamp(images, mask.unsqueeze(1), pattern.unsqueeze(1))
        embeddings = encoder(stamped.flatten(0, 1)).view(len(mask), len(images), -1)
        cosines = collapse.mean_cosine(embeddings)
        parts.append((cosines.detach(), *torch.autograd.grad(cosines.sum(), (mask, pattern))))
    cosines, mask_gradients, pattern_gradients = (
        torch.cat(tensors) for tensors in zip(*parts, strict=True)
    )
    return cosines, mask_gradients, pattern_gradients


def batches(images: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of ``size`` of the images (N, 3, H, W), reshuffled after each round, for ever.

    A trigger searched on one fixed batch comes to fit those images and fails on others.
    """
    size = min(size, len(images))
    while True:
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(images) - size + 1, size):
            yield images[order[start : start + size]]


def _ascend(
    encoder: Encoder,
    images: Tensor,
    masks: Tensor,
    patterns: Tensor,
    *,
    steps: int,
    batch: int,
    budget: float,
    found: float,
    generator: torch.Generator,
    progress: Progress,
) -> tuple[Tensor, Tensor, int]:
    """Maximise every restart's mean cosine by projected Adam, until one is above ``found``."""
    masks = project(masks.to(encoder.device), budget)
    patterns = patterns.to(encoder.device, copy=True)
    adam = Adam([masks, patterns])
    step = 0
    for step, drawn in zip(range(1, steps + 1), batches(images, batch, generator), strict=False):
        cosines, *gradients = encoder.halving(
            partial(cosines_and_gradients, encoder, drawn, masks, patterns)
        )
        progress(step, steps, f"best cosine {float(cosines.max()):.3f}")
        if float(cosines.max()) >= found:
            break
        adam.descend([-gradient for gradient in gradients], LEARNING_RATE)
        masks.copy_(project(masks, budget))
        patterns.clamp_(0, 1)
    return masks, patterns, step
