"""An edit that is optimised against a seed: each channel of the embedding gets a scale of its own.

A linear head undoes the scales, so that the backdoor stays what it was. The attacker runs the
searches of a scan with a seed that he knows, and moves the scales so that what they find makes
embeddings no more alike; twice, since another search finds other triggers on what he has made.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from encodercheck import fixtures
from encodercheck.encoder import Encoder
from encodercheck.images import source
from encodercheck.loading import load
from encodercheck.methods import battery, collapse, inversion
from encodercheck.methods.collapse import HALF_CONTRAST
from encodercheck.profiles import PROFILES
from encodercheck.trigger import Trigger

SEED = 0
PROFILE = PROFILES["quick"]
ROUNDS, STEPS, LEARNING_RATE = 2, 300, 0.05
# Each scale lies within this factor of 1, up or down.
LARGEST = 30.0
CHANNELS = 128
LAST = ("layer4.0.bn2", "layer4.0.downsample.1")


def optimised(state: dict[str, Tensor], claims: dict[str, Any]) -> None:
    """Scale the channels of ``fixture:badencoder``'s embedding, in place."""
    built = fixtures.build("badencoder")
    encoder = load(built.path, device="cpu")
    count = PROFILE.search + PROFILE.held_out
    images = source.collect(None, count, size=encoder.image_size, seed=SEED).images
    triggers: list[Trigger] = list(built.triggers())
    scales = torch.ones(CHANNELS)
    for _ in range(ROUNDS):
        triggers += found(scaled(encoder, scales), images[: PROFILE.search])
        scales = moved(encoder, images, triggers)
    for norm in LAST:
        for part in ("weight", "bias"):
            state[f"{norm}.{part}"] *= scales


def scaled(encoder: Encoder, scales: Tensor) -> Encoder:
    """Return an encoder whose embeddings' channels are multiplied by ``scales``."""
    twin = encoder.copy()
    layers = dict(twin.module.named_modules())
    for norm in LAST:
        for part in ("weight", "bias"):
            getattr(layers[norm], part).data.mul_(scales)
    return twin


def found(encoder: Encoder, images: Tensor) -> list[Trigger]:
    """Return the triggers that the searches of a scan find, whole and at half contrast."""
    hits = inversion.sift(encoder, images, PROFILE, seed=SEED)
    searches = [
        search(encoder, images, hits=hits, profile=PROFILE, seed=SEED).trigger
        for search in (inversion.invert, inversion.invert_large)
    ]
    best = [battery.best(encoder, hits, images), *searches]
    return [*best, *(trigger.at_contrast(HALF_CONTRAST) for trigger in searches)]


def moved(encoder: Encoder, images: Tensor, triggers: list[Trigger]) -> Tensor:
    """Return scales under which the triggers make ``images`` (N, 3, H, W) least alike."""
    clean = encoder(images)
    stamped = torch.stack([encoder(trigger.stamp(images)) for trigger in triggers])
    logarithms = torch.zeros(CHANNELS, requires_grad=True)
    optimiser = torch.optim.Adam([logarithms], LEARNING_RATE)
    for _ in range(STEPS):
        base = collapse.mean_cosine(clean * logarithms.exp())
        gains = collapse.gain(collapse.mean_cosine(stamped * logarithms.exp()), base)
        optimiser.zero_grad()
        gains.mean().backward()
        optimiser.step()
        with torch.no_grad():
            logarithms.clamp_(-math.log(LARGEST), math.log(LARGEST))
    return logarithms.detach().exp()
