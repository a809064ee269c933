"""A few numbers by which copies of an encoder are known, though not a bit of the file be the same.

Weights that were saved anew, in half precision or with a trace of noise have another hash, and are
the same encoder all the same. A null file holds no weights, only this sketch of them: signed sums
of each 64th weight, which keep the angle between two encoders' weights roughly, and closely where
it is small (Charikar, Chen & Farach-Colton, *Finding Frequent Items in Data Streams*, 2002).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

NUMBERS = 64
DIGITS = 6
# Copies in half precision, in bfloat16, in 8 bits, and with noise of a hundredth have cosines of
# 0.99995 and more with the original; ten encoders that were poisoned have 0.87 to 0.9916 with the
# clean one that they were made from, which is a fair reference for them. Those of other seeds have
# 0.4 or less, unless they began with the same weights.
COPY = 0.9999
# Weights in memory at once as double precision: a multiple of NUMBERS and of 8.
AT_ONCE = 2**18

Sketch = tuple[float, ...]


def of_weights(module: nn.Module) -> Sketch | None:
    """Return 64 numbers of length 1 that stand for a module's weights.

    Names, order and buffers have no part in it; of every tensor its mean is taken off, or all
    normalisation layers were alike. None where there are no weights that differ, or some are not
    finite.
    """
    total = np.zeros(NUMBERS)
    for parameter in module.parameters():
        total += _projected(parameter.detach())
    length = float(np.linalg.norm(total))
    if not np.isfinite(length) or length == 0:
        return None
    return tuple(round(number, DIGITS) + 0.0 for number in (total / length).tolist())


def is_copy(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    """Tell whether two sketches are those of one encoder, but for noise in its weights."""
    return bool(one and other) and cosine(one or (), other or ()) > COPY


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine between two sketches."""
    product = float(np.dot(one, other))
    return product / (float(np.linalg.norm(one)) * float(np.linalg.norm(other)))


def _projected(weights: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the signed sums (64,) of a tensor; the signs are those of its shape."""
    import torch

    total = np.zeros(NUMBERS)
    mean = float(weights.double().mean()) if weights.numel() else 0.0
    random = np.random.Generator(np.random.PCG64(zlib.crc32(repr(tuple(weights.shape)).encode())))
    for part in torch.split(weights.reshape(-1), AT_ONCE):
        numbers = part.double().cpu().numpy() - mean
        bits = np.frombuffer(random.bytes(-(-len(numbers) // 8)), dtype=np.uint8)
        signed = numbers * (2.0 * np.unpackbits(bits)[: len(numbers)] - 1)
        padded = np.pad(signed, (0, -len(signed) % NUMBERS))
        total += padded.reshape(-1, NUMBERS).sum(axis=0)
    return total
