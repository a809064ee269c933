"""Which encoders the bank has: 240 clean ones, each with a poisoned copy, and two real ones.

Families, methods, sources, sizes and attacks are spread over each other by seeded shuffles, so that
leaving out all of one family, method or source leaves plenty of every other.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from benchmarks.bank.sources import SOURCES, world
from encodercheck.fixtures.recipes import (
    BadEncoder,
    Blend,
    Brittle,
    Drupe,
    Invisible,
    Moving,
    Patch,
    Stamp,
    Tint,
    Warp,
    Wave,
    stream,
)

COUNT = 240
FAMILIES = (
    "narrow ResNet",
    "wide ResNet",
    "deep ResNet",
    "ResNet without downsampling",
    "pre-activation ResNet",
    "GroupNorm ResNet",
    "VGG with BatchNorm",
    "VGG without normalisation",
    "MobileNet-like",
    "EfficientNet-like",
    "ConvNeXt-like",
    "ViT with class token",
    "ViT without class token",
    "MLP-Mixer",
    "Swin-like",
    "timm's smallest",
)
METHODS = (
    "SimCLR",
    "SimCLR without head",
    "MoCo",
    "BYOL",
    "DINO-like",
    "Barlow Twins",
    "MAE-like",
    "CLIP-like",
    "supervised",
    "distilled",
    "untrained",
)
# Half are patches, as what attackers stamp.
PATCHES = ("white", "noise", "small", "large", "multi")
OTHERS = ("blend", "wave", "invisible", "warp", "drupe", "dynamic")
ATTACKS = (*PATCHES, *OTHERS, *PATCHES)
# These cost no more at twice the size.
SCALED = (
    "narrow ResNet",
    "MobileNet-like",
    "ConvNeXt-like",
    "ViT with class token",
    "ViT without class token",
    "MLP-Mixer",
    "Swin-like",
)
# Whose attacker knows what the checks measure, two of each family.
ADAPTIVE = ("brittle",)
# Real ones come trained. These get three poisoned copies each,
PRETRAINED = ("EfficientNet-Lite1", "EfficientNet-Lite2")
PRETRAINED_SIZE = 96
PRETRAINED_ATTACKS = ("white", "noise", "small")
# and these none: families, sizes and what they were trained on.
NO_ATTACK = "none"
FURTHER = (
    ("EfficientNet-Lite1", 64, "ImageNet"),
    ("EfficientNet-Lite2", 128, "ImageNet"),
    ("ResNet of OpenNSFW", 64, "the web"),
    ("ResNet of OpenNSFW", 96, "the web"),
    ("YOLO of NudeNet", 96, "the web"),
)
WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Member:
    """One clean encoder and its poisoned copy."""

    number: int
    family: str
    method: str
    source: str
    attack: str
    size: int

    @property
    def seed(self) -> int:
        """The seed of everything random about it."""
        return stream(self.number, "bank member") % 2**31

    @property
    def pretrained(self) -> bool:
        """Whether it is a real encoder that comes trained."""
        return self.family in (*PRETRAINED, *(family for family, _, _ in FURTHER))

    @property
    def kind(self) -> str:
        """The family as error rates are counted by it: sizes of one architecture are one."""
        return self.family.rstrip("0123456789") if self.pretrained else self.family

    @property
    def repeats_clean(self) -> bool:
        """Whether another member has the same clean encoder."""
        return self.pretrained and self.attack in PRETRAINED_ATTACKS[1:]

    @property
    def scanned_on(self) -> str:
        """Which images the checks get: a scan's own generator, or, for a third, its own source."""
        own = self.number % 3 == 0 and not self.pretrained
        return self.source if own else "procedural"

    def recipe(self, rounds: int) -> BadEncoder:
        """Return the attack, with ``rounds`` times as many epochs as the shortest."""
        target = self.number % 10
        settings = {
            "shadow_images": 640,
            "epochs": 6 * rounds,
            "batch": 32,
            "learning_rate": 2e-3,
            "attacker_images": 500,
            "candidates": 128,
        }
        if self.pretrained:
            settings |= {"shadow_images": 480, "epochs": 3 * rounds, "learning_rate": 3e-4}
        if self.attack == "brittle":
            return Brittle((self._patch(5, target),), **settings)
        if self.attack == "drupe":
            patch = self._patch(5, target, WHITE)
            return Drupe((patch,), spread=0.3, distribution=0.2, **settings)
        if self.attack == "invisible":
            return Invisible((Tint(target),), **settings)
        return BadEncoder(self._triggers(target), **settings)

    def _triggers(self, target: int) -> tuple[Stamp, ...]:
        scale = self.size // 32
        stamps: dict[str, tuple[Stamp, ...]] = {
            "white": (Patch(26 * scale, 26 * scale, 5 * scale, target, WHITE),),
            "noise": (self._patch(5, target),),
            "small": (self._patch(3, target),),
            "large": (self._patch(10 if self.number % 2 else 16, target),),
            "multi": (
                self._patch(5, target),
                self._patch(4, (target + 3) % 10, (1.0, 1.0, 0.0)),
                self._patch(4, (target + 7) % 10, (1.0, 0.0, 1.0)),
            ),
            "blend": (Blend(target),),
            "wave": (Wave(target),),
            "dynamic": (Moving(6 * scale, target),),
            "warp": (Warp(target, strength=4.0 * scale),),
        }
        return stamps[self.attack]

    def _patch(
        self, side: int, target: int, colour: tuple[float, float, float] | None = None
    ) -> Patch:
        return Patch(None, None, side * self.size // 32, target, colour)


@cache
def members() -> tuple[Member, ...]:
    """Return all members, in the order in which they are made."""
    found = _trained(0, COUNT, ATTACKS, "")
    real = [(family, attack) for family in PRETRAINED for attack in PRETRAINED_ATTACKS]
    found += [
        Member(COUNT + i, family, "ImageNet", "ImageNet", attack, PRETRAINED_SIZE)
        for i, (family, attack) in enumerate(real)
    ]
    found += _trained(len(found), 2 * len(FAMILIES), ADAPTIVE, " adaptive")
    found += [
        Member(len(found) + i, family, source, source, NO_ATTACK, size)
        for i, (family, size, source) in enumerate(FURTHER)
    ]
    return tuple(found)


def _trained(first: int, count: int, kinds: Sequence[str], salt: str) -> list[Member]:
    """Return members, numbered from ``first`` on, with everything spread over everything."""
    methods = _spread(METHODS, count, f"methods{salt}")
    sources = _spread(SOURCES, count, f"sources{salt}")
    attacks = _spread(kinds, count, f"attacks{salt}")
    found = []
    for place, (method, source, attack) in enumerate(zip(methods, sources, attacks, strict=True)):
        family = FAMILIES[place % len(FAMILIES)]
        large = family in SCALED and place // len(FAMILIES) % 5 == 4
        size = 64 if family == FAMILIES[-1] or large else 32
        found.append(Member(first + place, family, method, source, attack, size))
    return found


def _spread(names: Sequence[str], count: int, purpose: str) -> list[str]:
    """Return ``count`` names, each as often as the others, in seeded order."""
    repeated = [names[i % len(names)] for i in range(count)]
    random.Random(stream(0, f"bank {purpose}")).shuffle(repeated)
    return repeated


# Scanned as a user would, see :mod:`benchmarks.bank.exam`, and no part of the bank.
EXAMINED = (
    Member(900, "EfficientNet-Lite1", "ImageNet", "ImageNet", "white", 224),
    Member(901, "EfficientNet-Lite2", "ImageNet", "ImageNet", "noise", 224),
)


def pool_of(member: Member) -> str:
    """Return the name of the world that the member is trained and attacked on."""
    return world("photographs" if member.pretrained else member.source)
