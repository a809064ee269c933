"""Whether an encoder is a well-behaved function: finite, repeatable, independent of the batch.

Lengths are taken in double precision, of embeddings divided by their own largest magnitude: no
embedding is too small or too large to be measured.
"""

from __future__ import annotations

import math
from itertools import chain

import torch
from torch import Tensor

from encodercheck.encoder import Encoder

# The sum of squares of float32 numbers is nothing, or infinite, beyond these lengths.
SHORTEST = math.sqrt(torch.finfo(torch.float32).tiny)
LONGEST = math.sqrt(torch.finfo(torch.float32).max)


def non_finite_weights(encoder: Encoder) -> int:
    """Return how many weights and buffer entries are NaN or infinite."""
    tensors = chain(encoder.module.parameters(), encoder.module.buffers())
    return sum(int((~tensor.isfinite()).sum()) for tensor in tensors if tensor.is_floating_point())


def lengths(embeddings: Tensor) -> Tensor:
    """Return the lengths (N,) of embeddings (N, D) in double precision; NaN and infinity stay."""
    values = embeddings.detach().cpu().double()
    largest = values.abs().amax(1, keepdim=True)
    scaled = (values / largest).norm(dim=1) * largest[:, 0]
    # Zero by zero, and infinity by infinity, are no lengths.
    return torch.where((largest[:, 0] == 0) | largest[:, 0].isinf(), largest[:, 0], scaled)


def zero_embeddings(embeddings: Tensor) -> int:
    """Return how many of (N, D) embeddings have no length, or one too short for float32: < 1e-19.

    To normalise them is to divide by zero.
    """
    return int((lengths(embeddings) < SHORTEST).sum())


def infinite_norms(embeddings: Tensor) -> int:
    """Return how many of (N, D) embeddings have an infinite length in float32: above 1.8e19."""
    return int((lengths(embeddings) > LONGEST).sum())


def difference(first: Tensor, second: Tensor) -> float:
    """Return the largest distance between two embeddings (N, D) of the same images.

    It is relative to the length of the first, and does not change with the scale of both. NaN where
    an embedding is not finite, infinite where only the first is zero.
    """
    pair = torch.stack([first, second]).detach().cpu().double()
    largest = pair.abs().amax((0, 2))
    scaled = pair / largest.where(largest != 0, torch.ones_like(largest))[:, None]
    apart = (scaled[0] - scaled[1]).norm(dim=1)
    relative = apart / scaled[0].norm(dim=1)
    return float(relative.where(largest != 0, torch.zeros_like(largest)).max())
