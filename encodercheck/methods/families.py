"""Families of triggers that a search can move in: what is free in each, and what bounds it.

Each holds R triggers at once, the restarts of a search, as tensors whose first dimension is R.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from encodercheck.trigger import Trigger, stamp

# The share of a pixel over which a box's edge fades: without it no gradient could move the box.
EDGE = 0.5
# Where on a whole image something found on a part of it may go, as parts of what is left.
PLACES = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))
# Adam moves every number by about its learning rate: centres count in this many pixels.
CENTRE_UNIT = 10.0

F = TypeVar("F", bound="Family")


@dataclass
class Family(ABC):
    """R triggers of one kind, to be moved in place.

    ``parameters`` are tensors (R, ...) on the encoder's device.
    """

    parameters: list[Tensor]

    def __len__(self) -> int:
        """Return R."""
        return len(self.parameters[0])

    @abstractmethod
    def stamp(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Stamp images (N, 3, H, W) in [0, 1] with r of the triggers: (r, N, 3, H, W)."""

    @abstractmethod
    def project(self) -> None:
        """Move the parameters to the nearest that the family allows."""

    def chosen(self: F, which: Tensor) -> F:
        """Return the triggers with these numbers (r,) alone."""
        return replace(self, parameters=[tensor[which].clone() for tensor in self.parameters])

    @abstractmethod
    def carried(self, size: int) -> Family:
        """Return the triggers on images of ``size`` x ``size`` pixels, larger than their own.

        They keep their pixels. Patches are put at several places: one after another, all of the
        first trigger before the next.
        """

    @abstractmethod
    def triggers(self) -> list[Trigger]:
        """Return all R triggers, on the CPU."""


@dataclass
class PixelMask(Family):
    """Any mask whose mean, DECREE's PL1, is at most ``budget``, with any pattern.

    Parameters are masks (R, 1, H, W) and patterns (R, 3, H, W).
    """

    budget: float

    def stamp(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Replace: ``(1 - m) x + m p``."""
        masks, patterns = parameters
        return stamp(images, masks.unsqueeze(1), patterns.unsqueeze(1))

    def project(self) -> None:
        """Project the masks on a box and an L1 ball, the patterns on [0, 1]."""
        masks, patterns = self.parameters
        masks.copy_(project(masks, self.budget))
        patterns.clamp_(0, 1)

    def carried(self, size: int) -> PixelMask:
        """Return each mask at several places, with nothing around it."""
        masks, patterns = self.parameters
        both = [_placed(masks, size, 0.0), _placed(patterns, size, 0.5)]
        return PixelMask(both, self.budget * (masks.shape[-1] / size) ** 2)

    def triggers(self) -> list[Trigger]:
        """Return the masks and patterns as triggers."""
        pairs = zip(*(tensor.cpu() for tensor in self.parameters), strict=True)
        return [Trigger(mask, pattern, name="inverted") for mask, pattern in pairs]


@dataclass
class Box(Family):
    """One opaque rectangle of ``area`` pixels anywhere, with any pattern.

    Parameters are centres (R, 2) in units of ten pixels, logarithms of height over width (R,), and
    patterns (R, 3, H, W).
    """

    area: float

    def masks(self, centres: Tensor, aspects: Tensor, size: int) -> Tensor:
        """Return the rectangles as masks (r, 1, size, size) of at most ``area``, edges soft."""
        middle = torch.arange(size, device=centres.device) + 0.5
        sides = torch.stack([aspects / 2, -aspects / 2], 1).exp() * self.area**0.5
        away = (middle - CENTRE_UNIT * centres.unsqueeze(2)).abs()
        rows, columns = torch.sigmoid((sides.unsqueeze(2) / 2 - away) / EDGE).unbind(1)
        masks = rows.unsqueeze(2) * columns.unsqueeze(1)
        return (masks * (self.area / masks.sum((1, 2), keepdim=True)).clamp(max=1)).unsqueeze(1)

    def stamp(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Replace what is under the rectangle."""
        centres, aspects, patterns = parameters
        masks = self.masks(centres, aspects, images.shape[-1])
        return stamp(images, masks.unsqueeze(1), patterns.unsqueeze(1))

    def project(self) -> None:
        """Keep the rectangles within the image and not longer than four times their width."""
        centres, aspects, patterns = self.parameters
        aspects.clamp_(-1.4, 1.4)
        half = torch.stack([aspects / 2, -aspects / 2], 1).exp() * self.area**0.5 / 2
        size = patterns.shape[-1]
        half = half.clamp(max=size / 2)
        centres.copy_(torch.minimum(torch.maximum(centres, half / 10), (size - half) / 10))
        patterns.clamp_(0, 1)

    def carried(self, size: int) -> Box:
        """Return each rectangle at several places."""
        centres, aspects, patterns = self.parameters
        away = torch.tensor(_offsets(size, patterns.shape[-1]), device=centres.device)
        moved = centres.unsqueeze(1) + away / CENTRE_UNIT
        repeated = aspects.repeat_interleave(len(away))
        return Box([moved.flatten(0, 1), repeated, _placed(patterns, size, 0.5)], self.area)

    def triggers(self) -> list[Trigger]:
        """Return the rectangles and patterns as triggers."""
        centres, aspects, patterns = self.parameters
        masks = self.masks(centres, aspects, patterns.shape[-1]).clamp(0, 1)
        return [
            Trigger(mask, pattern, name="inverted box")
            for mask, pattern in zip(masks.cpu(), patterns.cpu(), strict=True)
        ]


@dataclass
class Additive(Family):
    """Any pattern added to the whole image that changes no value by more than ``bound``.

    The only parameter are the patterns (R, 3, H, W) in [-bound, bound]. Frequency triggers such as
    CTRL's are among them.
    """

    bound: float

    def stamp(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Add and clip."""
        (patterns,) = parameters
        return (images + patterns.unsqueeze(1)).clamp(0, 1)

    def project(self) -> None:
        """Clip the patterns."""
        self.parameters[0].clamp_(-self.bound, self.bound)

    def carried(self, size: int) -> Additive:
        """Return the patterns, repeated side by side."""
        return Additive([_tiled(self.parameters[0], size)], self.bound)

    def triggers(self) -> list[Trigger]:
        """Return the patterns as additive triggers."""
        return [
            Trigger(torch.ones_like(p[:1]), p, additive=True, name="inverted perturbation")
            for p in self.parameters[0].cpu()
        ]


@dataclass
class Blend(Family):
    """Any picture blended with the whole image at ``strength``.

    The only parameter are the pictures (R, 3, H, W) in [0, 1].
    """

    strength: float

    def stamp(self, images: Tensor, *parameters: Tensor) -> Tensor:
        """Mix: ``(1 - s) x + s p``."""
        (pictures,) = parameters
        return torch.lerp(images, pictures.unsqueeze(1), self.strength)

    def project(self) -> None:
        """Clip the pictures."""
        self.parameters[0].clamp_(0, 1)

    def carried(self, size: int) -> Blend:
        """Return the pictures, repeated side by side."""
        return Blend([_tiled(self.parameters[0], size)], self.strength)

    def triggers(self) -> list[Trigger]:
        """Return the pictures as triggers of a faint mask."""
        return [
            Trigger(torch.full_like(p[:1], self.strength), p, name="inverted blend")
            for p in self.parameters[0].cpu()
        ]


def _offsets(size: int, side: int) -> list[tuple[int, int]]:
    """Return where the corner of a part of ``side`` pixels goes in an image of ``size``."""
    left = size - side
    return [(round(down * left), round(right * left)) for down, right in PLACES]


def _placed(tensors: Tensor, size: int, around: float) -> Tensor:
    """Return (R, C, h, h) at every place of (R x places, C, size, size), ``around`` elsewhere."""
    side = tensors.shape[-1]
    places = []
    for top, left in _offsets(size, side):
        whole = tensors.new_full((len(tensors), tensors.shape[1], size, size), around)
        whole[:, :, top : top + side, left : left + side] = tensors
        places.append(whole)
    return torch.stack(places, 1).flatten(0, 1)


def _tiled(tensors: Tensor, size: int) -> Tensor:
    """Return (R, C, h, h) repeated side by side to (R, C, size, size)."""
    times = math.ceil(size / tensors.shape[-1])
    return tensors.repeat(1, 1, times, times)[:, :, :size, :size].contiguous()


def pixel_masks(
    warm: Sequence[Trigger],
    restarts: int,
    size: int,
    *,
    budget: float,
    generator: torch.Generator,
    device: torch.device,
) -> PixelMask:
    """Return restarts that begin at the ``warm`` triggers, and the rest of them at random.

    A warm mask keeps some weight off its patch, without which no gradient could move it.
    """
    masks = torch.rand(restarts, 1, size, size, generator=generator)
    patterns = torch.rand(restarts, 3, size, size, generator=generator)
    for i, trigger in enumerate(warm):
        masks[i] = 0.9 * trigger.mask + 0.02
        patterns[i] = torch.where(trigger.mask > 0, trigger.pattern, patterns[i])
    return PixelMask([masks.to(device), patterns.to(device)], budget)


def boxes(
    warm: Sequence[Trigger],
    restarts: int,
    size: int,
    *,
    budget: float,
    generator: torch.Generator,
    device: torch.device,
) -> Box:
    """Return squares where the ``warm`` triggers are, and the rest of them all over the image.

    A box feels only what lies at its edges: the others begin each in a part of the image of its
    own, since none of them would cross it.
    """
    centres = _spread(restarts - len(warm), size, generator)
    patterns = torch.rand(restarts, 3, size, size, generator=generator)
    for i, trigger in enumerate(warm):
        top, left, height, width = trigger.box
        centres.insert(i, (top + height / 2, left + width / 2))
        patterns[i] = torch.where(trigger.mask > 0, trigger.pattern, patterns[i])
    tensors = [torch.tensor(centres) / CENTRE_UNIT, torch.zeros(restarts), patterns]
    return Box([tensor.to(device) for tensor in tensors], budget * size**2)


def _spread(count: int, size: int, generator: torch.Generator) -> list[tuple[float, float]]:
    """Return a random place in each of ``count`` parts of the image."""
    rows = max(1, math.isqrt(count))
    places = []
    for row in range(rows):
        columns = count // rows + (row < count % rows)
        for column in range(columns):
            down, right = torch.rand(2, generator=generator).tolist()
            places.append(((row + down) / rows * size, (column + right) / columns * size))
    return places


def project(masks: Tensor, budget: float) -> Tensor:
    """Return the nearest masks (R, 1, H, W) in [0, 1] whose means are at most ``budget``.

    The Euclidean projection on a box and an L1 ball is ``clip(mask - t, 0, 1)``; bisection finds t.
    """
    low = torch.zeros(len(masks), 1, 1, 1, device=masks.device)
    high = masks.amax((1, 2, 3), keepdim=True).clamp_min(0)
    too_large = masks.clamp(0, 1).mean((1, 2, 3), keepdim=True) > budget
    for _ in range(24):
        middle = (low + high) / 2
        over = (masks - middle).clamp(0, 1).mean((1, 2, 3), keepdim=True) > budget
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    return (masks - high * too_large).clamp(0, 1)
