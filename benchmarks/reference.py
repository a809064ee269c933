"""The published DECREE loop, to compare with: one random start, as the paper and its constants say.

Feng et al., *Detecting Backdoors in Pre-trained Encoders*, CVPR 2023. Written from the paper and
the constants of the authors' release, for images of 32 and of 224 pixels; nothing of it is used by
any check. As published, the encoder's own weights carry gradients that are not used, BatchNorm is
not folded, and one batch goes through the encoder at a time.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from encodercheck.encoder import Encoder
from encodercheck.trigger import Trigger, stamp

THRESHOLD = 0.1
SUCCESS = 0.99
EPOCHS = 1000
BATCH = 128
BETAS = (0.5, 0.9)
PATIENCE = 5
LAMBDA_START = 1e-3
LAMBDA_MOST = 1e5
FACTOR = 5.0


@dataclass(frozen=True)
class Settings:
    """What the release sets by image size: learning rates by epoch, and when to give up."""

    rates: tuple[tuple[int, float], ...]
    lambda_least: float
    early_stop: int

    @classmethod
    def for_size(cls, size: int) -> Settings:
        """Return the settings for CIFAR-sized images, or for ImageNet-sized ones."""
        if size < 64:
            return cls(((0, 0.5), (30, 0.1), (50, 0.05)), 1e-5, 2 * PATIENCE)
        return cls(((0, 0.5), (200, 0.1), (500, 0.05)), 1e-7, 7 * PATIENCE)

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch."""
        return next(rate for start, rate in reversed(self.rates) if epoch >= start)


@dataclass(frozen=True)
class Inverted:
    """What the loop found; PL1 is 1 where no trigger ever reached a cosine of 0.99."""

    trigger: Trigger | None
    pl1: float
    steps: int
    seconds: float

    @property
    def backdoored(self) -> bool:
        """The published verdict: PL1 below 0.1."""
        return self.pl1 < THRESHOLD


def invert(
    encoder: Encoder,
    images: Tensor,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
    seconds: float = float("inf"),
) -> Inverted:
    """Run the loop on clean images (N, 3, H, W) in [0, 1].

    It ends early after ``seconds``, for benchmarks that cannot wait for 1000 epochs; the best
    trigger so far then counts.
    """
    own = copy.copy(encoder)
    own.module = copy.deepcopy(encoder.module).requires_grad_(True)
    settings = Settings.for_size(encoder.image_size)
    search = _Search(encoder.image_size, settings, torch.Generator().manual_seed(seed))
    started, steps = time.perf_counter(), 0
    for epoch in range(epochs):
        search.optimizer.param_groups[0]["lr"] = settings.rate(epoch)
        cosines = []
        for batch in _shuffled(images, search.generator):
            cosines.append(search.step(own, batch))
            steps += 1
        if sum(cosines) / len(cosines) > SUCCESS and search.stale > settings.early_stop:
            break
        if time.perf_counter() - started > seconds:
            break
    return Inverted(search.best, search.best_pl1, steps, time.perf_counter() - started)


class _Search:
    """The loop's variables, and one step of it."""

    def __init__(self, size: int, settings: Settings, generator: torch.Generator) -> None:
        self.settings, self.generator = settings, generator
        mask, pattern = (torch.rand(c, size, size, generator=generator) for c in (1, 3))
        self.mask, self.pattern = (
            torch.atanh((tensor - 0.5) * (2 - 1e-7)).requires_grad_() for tensor in (mask, pattern)
        )
        self.optimizer = torch.optim.Adam([self.mask, self.pattern], lr=0.5, betas=BETAS)
        self.weight = LAMBDA_START
        self.above = self.below = self.at_floor = self.stale = 0
        self.best: Trigger | None = None
        self.best_pl1 = 1.0

    def step(self, encoder: Encoder, images: Tensor) -> float:
        """Take one step on a batch (N, 3, H, W); return its mean cosine."""
        mask, pattern = ((torch.tanh(u) / 2 + 0.5).clamp(0, 1) for u in (self.mask, self.pattern))
        cosine = _mean_cosine(encoder(stamp(images, mask, pattern)))
        # The release counts the mask once for each colour channel.
        size = 3 * mask.sum()
        self.optimizer.zero_grad()
        encoder.module.zero_grad()
        (-cosine + self.weight * size).backward()
        self.optimizer.step()
        reached = cosine.item()
        self._keep(reached, mask.detach(), pattern.detach())
        self._adapt(reached > SUCCESS)
        return reached

    def _keep(self, cosine: float, mask: Tensor, pattern: Tensor) -> None:
        pl1 = float(mask.mean())
        if cosine > SUCCESS and pl1 < self.best_pl1:
            self.best_pl1, self.best = pl1, Trigger(mask, pattern, name="reference")
            self.stale = 0
        elif self.best is not None:
            self.stale += 1

    def _adapt(self, success: bool) -> None:
        """Move lambda after more than five steps in a row above or below the threshold."""
        self.at_floor = self.at_floor + 1 if success and self.weight < self._least else 0
        if self.at_floor > 2 * PATIENCE:
            self.weight, self.above, self.below = LAMBDA_START, 0, 0
        self.above, self.below = (self.above + 1, 0) if success else (0, self.below + 1)
        if self.above > PATIENCE:
            self.weight *= FACTOR if self.weight < LAMBDA_MOST else 1
            self.above = 0
        elif self.below > PATIENCE:
            self.weight /= FACTOR if self.weight >= self._least else 1
            self.below = 0

    @property
    def _least(self) -> float:
        return self.settings.lambda_least


def _mean_cosine(embeddings: Tensor) -> Tensor:
    """Return the mean of the matrix of cosines off its diagonal."""
    unit = functional.normalize(embeddings, dim=1)
    cosines = unit @ unit.T
    count = len(unit)
    return (cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1))


def _shuffled(images: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    order = torch.randperm(len(images), generator=generator)
    for indices in torch.split(order, BATCH):
        yield images[indices]
