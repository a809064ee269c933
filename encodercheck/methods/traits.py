"""Traits: what decides how far a clean encoder can be taken, whatever its architecture.

How far a trigger takes a clean encoder towards collapse differs by an order of magnitude between
encoders: small transformers yield little, networks without normalisation almost everything. It
shows in what takes no search: how alike clean embeddings are and how many directions they
span, and how much embeddings give way to *random* patches, waves, noise and pictures of the same
budgets. A reference predicted from these holds for architectures that no reference encoder has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from encodercheck.encoder import Encoder
from encodercheck.images.split import CleanSplit
from encodercheck.methods import collapse
from encodercheck.methods.battery import dct_wave, patch
from encodercheck.methods.collapse import Clean
from encodercheck.trigger import Trigger

# Random triggers of each kind, and the images that they are tried on.
COUNT = 12
IMAGES = 24
# Parts of the image that random patches cover, by the budgets of the searches.
PATCH_SHARES = {"small": 0.03, "large": 0.12}
BOUND = 16 / 255
STRENGTH = 0.2
# Invisible noise, to tell how steep the encoder is.
NOISE = 2 / 255
# As their classes are called, in torch and in timm.
NORMALISATIONS = ("batchnorm", "layernorm", "groupnorm")
SMOOTH = ("silu", "gelu", "hardswish")
SHARP = ("relu", "relu6", "leakyrelu", "tanh")


def traits(encoder: Encoder, split: CleanSplit, *, seed: int) -> dict[str, float]:
    """Return the encoder's traits by name, measured on the search images alone.

    Cosines and gains as they are, see :mod:`collapse`; ``*_mean`` and ``*_max`` are over random
    triggers of a kind.

    Raises:
        CheckInconclusive: a clean embedding is not finite, or all are the same within rounding.
    """
    module, encoder = encoder.module, encoder.folded()
    images = split.search.to(encoder.device)
    embeddings = collapse.finite_embeddings(encoder, images)
    clean = Clean.of(encoder, images)
    few = images[:IMAGES]
    found = {
        "base_cosine": clean.base,
        "whitened_base": clean.whitened_base,
        "centred_rank": float(collapse.effective_rank(collapse.centred(embeddings))),
        "embedding_dim": float(embeddings.shape[1]),
        "image_size": float(encoder.image_size),
        "noise_response": noise_response(encoder, few, clean, seed=seed),
        "length_variation": length_variation(embeddings),
    } | layers(module)
    for kind, triggers in random_triggers(encoder.image_size, seed=seed).items():
        gains, whitened = collapse.stamped_gains(encoder, clean, triggers, few)
        found |= _summary(kind, gains) | _summary(f"{kind}_whitened", whitened)
    return found


def _summary(name: str, values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        f"{name}_mean": sum(values) / len(values),
        f"{name}_max": ordered[-1],
    }


def layers(module: nn.Module) -> dict[str, float]:
    """Return what a network is made of, as far as it decides how much a patch does.

    Which part of its normalisation layers is of each kind, all 0 without any: networks that
    normalise by batch statistics give way to small triggers more than those that normalise each
    image by itself. ``gated``: how many gates there are to each convolution. Those of squeeze and
    excitation (Hu et al., CVPR 2018) see the whole image, so that a patch anywhere reaches every
    channel. ``smooth``: which part of the other activations is smooth (SiLU, GELU, hard swish).
    """
    names = [type(part).__name__.lower() for part in module.modules()]
    counts = {kind: sum(kind in name for name in names) for kind in NORMALISATIONS}
    total = max(1, sum(counts.values()))
    found = {f"{kind.removesuffix('norm')}_norm": count / total for kind, count in counts.items()}
    convolutions = sum(isinstance(part, nn.Conv2d) for part in module.modules())
    gates = sum("sigmoid" in name for name in names)
    smooth, sharp = (sum(name in kinds for name in names) for kinds in (SMOOTH, SHARP))
    return found | {
        "gated": min(1.0, gates / max(1, convolutions)),
        "smooth": smooth / max(1, smooth + sharp),
    }


def length_variation(embeddings: Tensor) -> float:
    """Return the standard deviation of the logarithm of the lengths of embeddings (N, D)."""
    wide = embeddings.double()
    largest = wide.abs().amax(1, keepdim=True).clamp_min(1e-300)
    lengths = largest[:, 0].log() + (wide / largest).norm(dim=1).log()
    return float(lengths.std())


def noise_response(encoder: Encoder, images: Tensor, clean: Clean, *, seed: int) -> float:
    """Return how far noise of 2/255 moves embeddings, in parts of how far they lie apart.

    It stands for the size of the encoder's gradient, and needs none.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = NOISE * torch.randn(images.shape, generator=generator).to(images.device)
    before = collapse.unit(encoder(images))
    after = collapse.unit(encoder((images + noise).clamp(0, 1)))
    return float((1 - (before * after).sum(1)).mean() / (1 - clean.base))


def random_triggers(size: int, *, seed: int) -> Mapping[str, list[Trigger]]:
    """Return triggers for ``size`` x ``size`` images that were not searched for, by kind."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[Trigger]] = {}
    for kind, share in PATCH_SHARES.items():
        side = max(2, round(size * math.sqrt(share)))
        found[kind] = [_random_patch(size, side, number, generator) for number in range(COUNT)]
    ones = torch.ones(1, size, size)
    waves, noises, pictures = [], [], []
    for _ in range(COUNT):
        vertical, horizontal = torch.randint(1, 32, (2,), generator=generator).tolist()
        colour = 2 * torch.rand(3, 1, 1, generator=generator) - 1
        wave = dct_wave(size, vertical, horizontal) * colour / colour.abs().max()
        waves.append(Trigger(ones, BOUND * wave, additive=True))
        signs = torch.randint(2, (3, size, size), generator=generator) * 2.0 - 1
        noises.append(Trigger(ones, BOUND * signs, additive=True))
        picture = torch.rand(3, size, size, generator=generator)
        pictures.append(Trigger(STRENGTH * ones, picture))
    return {**found, "wave": waves, "noise": noises, "picture": pictures}


def _random_patch(size: int, side: int, number: int, generator: torch.Generator) -> Trigger:
    """Return a square at a random place; every other one has a single colour."""
    top, left = torch.randint(size - side + 1, (2,), generator=generator).tolist()
    shape = (3, 1, 1) if number % 2 else (3, side, side)
    pixels = torch.rand(shape, generator=generator).expand(3, side, side)
    return patch(size, top, left, pixels)
