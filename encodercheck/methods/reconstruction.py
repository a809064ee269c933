"""Train a decoder from embeddings and a few visible patches to images, and measure what it misses.

The pieces that DeDe (Hou, Li & Yao, CVPR 2025) is made of; images are at the decoded size of a
:class:`~encodercheck.methods.patches.PatchGrid` throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encodercheck.methods.decoders import DECODERS
from encodercheck.methods.patches import PatchGrid
from encodercheck.progress import Progress, silent

# Images that are decoded at once.
TOGETHER = 256
# Clean images whose reconstructions compete with an image's own.
RIVALS = 256


@dataclass(frozen=True)
class Training:
    """How a decoder is trained: ``mask`` is the part of the patches hidden at each step."""

    decoder: str = "conv"
    mask: float = 0.9
    epochs: int = 16
    batch: int = 128
    learning_rate: float = 6e-3
    seed: int = 0


@dataclass(frozen=True)
class Reconstructor:
    """A trained decoder, with the mean and deviation (D,) that embeddings are standardised by.

    Standardised components make it blind to the scale of an encoder's embeddings. ``rivals``
    (M, 3, P, P) are reconstructions of clean images from their embeddings alone.
    """

    grid: PatchGrid
    decoder: nn.Module
    centre: Tensor
    scale: Tensor
    rivals: Tensor

    @torch.no_grad()
    def decode(self, embeddings: Tensor, images: Tensor, visible: Tensor) -> Tensor:
        """Return images (N, 3, P, P) from embeddings (N, D) and their ``visible`` patches.

        ``visible`` is (N, count) or (1, count), of 0 and 1.
        """
        standard = (embeddings - self.centre) / self.scale
        visible = visible.expand(len(images), -1)
        return torch.cat(
            [self.decoder(standard[p], images[p], visible[p]) for p in _parts(len(images))]
        )

    def errors(self, embeddings: Tensor, images: Tensor, visible: Tensor) -> Tensor:
        """Return the mean squared error of every patch (N, count), 0 where it is visible."""
        errors = self.grid.errors(self.decode(embeddings, images, visible), images)
        return errors * (1 - visible)

    @torch.no_grad()
    def rival_errors(self, images: Tensor, weights: Tensor) -> Tensor:
        """Return how badly each rival fits images (N, 3, P, P): mean squared errors (N, M).

        ``weights`` (count,) say how much each patch counts.
        """
        roots = self.grid.spread(weights).sqrt()
        values = 3 * self.grid.detail**2 * weights.sum()
        rivals = (self.rivals * roots).flatten(1)
        return (
            torch.cat(
                [torch.cdist((images[p] * roots).flatten(1), rivals) for p in _parts(len(images))]
            ).square()
            / values
        )


def train(
    grid: PatchGrid,
    embeddings: Tensor,
    images: Tensor,
    training: Training,
    *,
    visible: Tensor | None = None,
    progress: Progress = silent,
) -> Reconstructor:
    """Train a decoder on embeddings (N, D) and images (N, 3, P, P); the loss is on hidden patches.

    What is visible is drawn anew for every batch, or fixed by ``visible`` (N, count). The global
    random state is left as found.
    """
    device = embeddings.device
    generator = torch.Generator().manual_seed(training.seed)
    centre, deviation = embeddings.mean(0), embeddings.std(0)
    # A component that hardly varies on clean images must not decide alone.
    scale = deviation.clamp_min(1e-3 * float(deviation.mean()) + 1e-12)
    standard = (embeddings - centre) / scale
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the accelerators too.
        torch.default_generator.manual_seed(training.seed)
        decoder = DECODERS[training.decoder](embeddings.shape[1], grid).to(device)
    order = list(_order(len(images), training, generator))
    adam = torch.optim.Adam(decoder.parameters(), training.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, training.learning_rate, len(order))
    for step, chosen in enumerate(order, start=1):
        if visible is None:
            shown = grid.visible(training.mask, len(chosen), generator).to(device)
        else:
            shown = visible[chosen].to(device)
        target = images[chosen]
        missed = grid.errors(decoder(standard[chosen], target, shown), target) * (1 - shown)
        loss = missed.sum() / (1 - shown).sum()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        schedule.step()
        progress(step, len(order), f"decoder error {float(loss.detach()):.4f}")
    decoder.eval().requires_grad_(False)
    with torch.no_grad():
        nothing = torch.zeros(len(images[:RIVALS]), grid.count, device=device)
        rivals = decoder(standard[:RIVALS], images[:RIVALS], nothing)
    return Reconstructor(grid, decoder, centre, scale, rivals)


def _order(count: int, training: Training, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the images of every batch of every epoch."""
    batch = min(training.batch, count)
    for _ in range(training.epochs):
        order = torch.randperm(count, generator=generator)
        yield from (order[i : i + batch] for i in range(0, count - batch + 1, batch))


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + TOGETHER) for start in range(0, count, TOGETHER))
