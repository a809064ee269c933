"""Whether an encoder is a well-behaved function: finite, repeatable, independent of the batch."""

from __future__ import annotations

from itertools import chain

from torch import Tensor

from encodercheck.encoder import Encoder


def non_finite_weights(encoder: Encoder) -> int:
    """Return how many weights and buffer entries are NaN or infinite."""
    tensors = chain(encoder.module.parameters(), encoder.module.buffers())
    return sum(int((~tensor.isfinite()).sum()) for tensor in tensors if tensor.is_floating_point())


def difference(first: Tensor, second: Tensor) -> float:
    """Return the largest relative distance between two embeddings (N, D) of the same images.

    NaN where an embedding is not finite.
    """
    length = first.norm(dim=1).clamp_min(1e-12)
    return float(((first - second).norm(dim=1) / length).max())
