"""A second image generator, unlike the embedded one: coloured clouds cut by straight edges.

Encoders trained on these images and scanned with the embedded generator's show whether a scan
raises false alarms when it does not know what the encoder was trained on.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def images(n: int, *, size: int, seed: int) -> Tensor:
    """Return images (n, 3, size, size) in [0, 1]: two cloud textures on the sides of an edge."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (_clouds(n, size, generator) for _ in range(2))
    return torch.where(_side_of_an_edge(n, size, generator), first, second)


def _clouds(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Filter white noise to a spectrum 1/f^a with a random exponent, in random colours."""
    frequencies = torch.hypot(
        torch.fft.fftfreq(size).view(-1, 1), torch.fft.rfftfreq(size).view(1, -1)
    ).clamp_min(1 / size)
    exponents = torch.empty(n, 1, 1, 1).uniform_(0.5, 2.5, generator=generator)
    noise = torch.randn(n, 3, size, size, generator=generator)
    clouds = torch.fft.irfft2(torch.fft.rfft2(noise) * frequencies**-exponents, s=(size, size))
    clouds = clouds / clouds.std((2, 3), keepdim=True)
    mixing = torch.randn(n, 3, 3, generator=generator) / math.sqrt(3)
    colour = torch.rand(n, 3, 1, 1, generator=generator)
    return (colour + 0.15 * torch.einsum("nij,njhw->nihw", mixing, clouds)).clamp(0, 1)


def _side_of_an_edge(n: int, size: int, generator: torch.Generator) -> Tensor:
    axis = torch.linspace(-1, 1, size)
    angle = torch.empty(n, 1, 1, 1).uniform_(0, 2 * math.pi, generator=generator)
    offset = torch.empty(n, 1, 1, 1).uniform_(-0.6, 0.6, generator=generator)
    return angle.cos() * axis.view(1, -1) + angle.sin() * axis.view(-1, 1) > offset
