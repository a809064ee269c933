"""Whitening: embeddings on axes along which clean ones are all equally long.

What a linear head undoes must not hide a trigger: a constant added to all embeddings, a channel a
thousand times as large as the rest, or a direction in which nothing but noise lies, dominates every
cosine. The second moments of clean embeddings, mean included, tell how long they are along each
axis; divided by that, the constant is one axis of many, and so is the large channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# So many clean embeddings are needed for each axis, or its length is chance.
EMBEDDINGS_PER_AXIS = 4
# An axis that is shorter than the longest by more than this is rounding.
LEAST_LENGTH = 1e-5


@dataclass(frozen=True)
class Whitening:
    """A linear map (D, K) from embeddings to K axes; in double precision, on the CPU or CUDA."""

    map: Tensor

    @classmethod
    def of(cls, embeddings: Tensor) -> Whitening:
        """Return the map that makes clean embeddings (N, D) as long along each axis as another.

        Channels are scaled to the same length first, whatever each one's own is. K is at most a
        quarter of N: the longest axes of the second moments ``Z^T Z / N`` of what that leaves.
        """
        wide = double(embeddings)
        tiny = torch.finfo(wide.dtype).tiny
        largest = wide.abs().amax(0).clamp_min(tiny)
        lengths = (wide / largest).square().mean(0).sqrt() * largest
        factors = torch.where(lengths > tiny, 1 / lengths.clamp_min(tiny), 0.0)
        _, sizes, axes = torch.linalg.svd(wide * factors, full_matrices=False)
        count = max(1, min(len(sizes), len(wide) // EMBEDDINGS_PER_AXIS))
        kept = sizes[:count] > LEAST_LENGTH * sizes[0]
        kept[0] = True
        scale = len(wide) ** 0.5 / sizes[:count][kept].clamp_min(tiny)
        return cls(factors.unsqueeze(1) * axes[:count][kept].T * scale)

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Return embeddings (..., N, D) on the axes, (..., N, K)."""
        wide = double(embeddings)
        return wide @ self.map.to(wide.device)


def double(embeddings: Tensor) -> Tensor:
    """Return embeddings in double precision; from devices that have none, on the CPU."""
    return (embeddings.cpu() if embeddings.device.type == "mps" else embeddings).double()
