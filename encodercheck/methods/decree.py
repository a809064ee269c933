"""DECREE: invert the smallest trigger that makes all embeddings alike.

Feng et al., *Detecting Backdoors in Pre-trained Encoders*, CVPR 2023. The published loop with its
schedule of lambda, vectorised over restarts, and started where it matters: the published single
random start misses triggers that a warm start finds at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from encodercheck.encoder import Encoder
from encodercheck.methods import collapse
from encodercheck.methods.adam import Adam
from encodercheck.methods.ascent import batches, scores_and_gradients
from encodercheck.methods.families import PixelMask
from encodercheck.progress import Progress, silent
from encodercheck.trigger import Trigger

# The cosine DECREE asks for, 0.99, is a gain of 0.98 on an encoder whose base is 0.5; written as a
# gain it asks the same of an encoder whose clean embeddings lie in a narrower cone.
TARGET_GAIN = 0.98
# What a trigger must gain on images it was not searched on to count as found.
CONFIRMED_GAIN = 0.95
# Where the best trigger on 3 % of the image gains less, no smaller one collapses embeddings, and
# none is searched; docs/bank.md has the masks that were found all the same.
NEAR = 0.6
LAMBDA_START = 1e-3
LAMBDA_STEP = 5.0
PATIENCE = 5
# With more images the cosine of a batch seldom reaches the target where it lies just below; with
# fewer, masks are kept that work on these few images only.
BATCH = 16
LEARNING_RATES = (0.5, 0.1, 0.05)
# After so many steps without a mask smaller by a fiftieth the search is over, as it is when half of
# all steps brought no mask at all.
STALE = 30
PROGRESS = 0.98


def minimise(
    encoder: Encoder,
    images: Tensor,
    warm: Sequence[Trigger],
    *,
    steps: int,
    batch: int = BATCH,
    seed: int = 0,
    target_gain: float = TARGET_GAIN,
    progress: Progress = silent,
) -> list[Trigger]:
    """Shrink each of the ``warm`` triggers while ``images`` (N, 3, H, W) in [0, 1] stay alike.

    Minimises ``-mean_cosine + lambda * |mask|_1`` (equation 3), with mask and pattern through tanh
    and lambda multiplied or divided by 5 after more than 5 steps in a row above or below the
    target.

    Returns:
        The smallest trigger of each restart that reached the target, the smallest first.

    Raises:
        CheckInconclusive: the images' embeddings are not finite, or the same within rounding, or
            the encoder is a black box.
    """
    collapse.require_gradients(encoder)
    encoder = encoder.folded()
    base = collapse.base_cosine(encoder, images)
    target = base + target_gain * (1 - base)
    images = images.to(encoder.device)
    search = _Search(warm, encoder.device, floor=1e-5 if encoder.image_size < 64 else 1e-7)
    drawn = batches(images, batch, torch.Generator().manual_seed(seed))
    for step, some in zip(range(steps), drawn, strict=False):
        search.step(encoder, some, target, LEARNING_RATES[3 * step // steps])
        progress(step + 1, steps, f"smallest mask {100 * search.smallest():.2g} %")
        if search.stale > STALE or (2 * step > steps and search.smallest() == 1):
            break
    return search.successes()


def smallest_confirmed(
    encoder: Encoder,
    candidates: Sequence[Trigger],
    images: Tensor,
    *,
    least_gain: float = CONFIRMED_GAIN,
) -> Trigger | None:
    """Return the first of ``candidates`` that collapses ``images`` (N, 3, H, W) in [0, 1] too.

    A mask this small can be fitted to the images it was searched on: it counts only when it
    works on others.
    """
    base = collapse.base_cosine(encoder, images)
    cosines = collapse.stamped_cosines(encoder, candidates, images)
    for trigger, cosine in zip(candidates, cosines, strict=True):
        if collapse.gain(cosine, base) >= least_gain:
            return trigger
    return None


class _Search:
    """The state of all restarts: parameters, lambdas, and the smallest success of each."""

    def __init__(self, warm: Sequence[Trigger], device: torch.device, floor: float) -> None:
        self.mask = _to_tanh(torch.stack([trigger.mask for trigger in warm])).to(device)
        self.pattern = _to_tanh(torch.stack([trigger.pattern for trigger in warm])).to(device)
        self.adam = Adam([self.mask, self.pattern])
        self.floor = floor
        self.weight = torch.full((len(warm), 1, 1, 1), LAMBDA_START, device=device)
        self.run = torch.zeros(len(warm), dtype=torch.long, device=device)
        self.best_pl1 = torch.ones(len(warm), device=device)
        self.stale, self._mark = 0, 1.0
        self.best_mask = torch.ones_like(self.mask)
        self.best_pattern = torch.zeros_like(self.pattern)

    def step(self, encoder: Encoder, images: Tensor, target: float, learning_rate: float) -> None:
        masks, patterns = _from_tanh(self.mask), _from_tanh(self.pattern)
        family = PixelMask([masks, patterns], budget=1.0)
        cosines, (mask_gradients, pattern_gradients) = encoder.halving(
            lambda: scores_and_gradients(encoder, images, family)
        )
        self._keep(cosines >= target, masks, patterns)
        self._adapt(cosines >= target)
        self._note_progress()
        # The chain rule through (tanh(u) + 1) / 2, whose slope is 2 v (1 - v).
        mask_gradients = (self.weight - mask_gradients) * 2 * masks * (1 - masks)
        pattern_gradients = -pattern_gradients * 2 * patterns * (1 - patterns)
        self.adam.descend([mask_gradients, pattern_gradients], learning_rate)

    def _keep(self, reached: Tensor, masks: Tensor, patterns: Tensor) -> None:
        pl1 = masks.mean((1, 2, 3))
        better = reached & (pl1 < self.best_pl1)
        self.best_pl1 = torch.where(better, pl1, self.best_pl1)
        self.best_mask[better], self.best_pattern[better] = masks[better], patterns[better]

    def _adapt(self, reached: Tensor) -> None:
        """Count steps in a row on one side of the target; after too many, move lambda."""
        same_side = torch.where(reached, self.run > 0, self.run < 0)
        self.run = torch.where(same_side, self.run, 0) + torch.where(reached, 1, -1)
        turn = (self.run.abs() > PATIENCE).view(-1, 1, 1, 1)
        factor = torch.where(reached, LAMBDA_STEP, 1 / LAMBDA_STEP).view(-1, 1, 1, 1)
        self.weight = torch.where(turn, (self.weight * factor).clamp_min(self.floor), self.weight)
        self.run = torch.where(turn.flatten(), 0, self.run)

    def _note_progress(self) -> None:
        """Count the steps since the smallest mask shrank, once there is one."""
        if self.smallest() < PROGRESS * self._mark:
            self.stale, self._mark = 0, self.smallest()
        elif self._mark < 1:
            self.stale += 1

    def smallest(self) -> float:
        return float(self.best_pl1.min())

    def successes(self) -> list[Trigger]:
        order = [int(i) for i in self.best_pl1.argsort() if self.best_pl1[i] < 1]
        return [
            Trigger(self.best_mask[i].cpu(), self.best_pattern[i].cpu(), name="smallest")
            for i in order
        ]


def _to_tanh(values: Tensor) -> Tensor:
    return torch.atanh((values * 2 - 1).clamp(-0.998, 0.998))


def _from_tanh(values: Tensor) -> Tensor:
    return (torch.tanh(values) + 1) / 2
