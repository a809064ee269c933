"""Procedural images: the embedded source of clean images, and of a labelled toy task.

A scene is a gradient, a few discs in front of it ("dead leaves": Lee, Mumford and Huang, IJCV 2001)
and one object in front of those. A scene is described by a row of uniform numbers that knows
nothing of pixels, so one seed shows the same scenes at every size, and image ``i`` is the same
however many images are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SHAPES = ("disc", "square", "triangle", "cross", "ring")
TEXTURES = ("stripes", "checks")
CLASSES = tuple(f"{texture} {shape}" for texture in TEXTURES for shape in SHAPES)

LEAVES = 8
# SimCLR learns nothing else beside a lively background: two crops are then matched by that alone.
BACKGROUND_CONTRAST = 0.3
LEAF_CONTRAST = 0.35
NOISE = 0.04
HUE_NOISE = 0.07

# label, gradient (2 colours, angle), leaves (place, radius, colour), object (see _Object)
_NUMBERS = 1 + 7 + LEAVES * 6 + 12
# A pass over this many pixels stays in the processor's cache.
_PIXELS_PER_CHUNK = 2**19


def scenes(
    n: int, *, size: int, seed: int, objects: Sequence[int] | Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Draw labelled scenes; the label is the object's shape and texture, see ``CLASSES``.

    Args:
        n: how many.
        size: side in pixels.
        seed: the same seed gives the same images; the first k of n are those of k.
        objects: (n,) labels in 0..9 to draw; without it they are random.

    Returns:
        images (n, 3, size, size) float32 in [0, 1] and labels (n,) int64.

    Raises:
        ValueError: ``n`` is negative, ``size`` is not positive, or ``objects`` are not n labels.
    """
    if n < 0 or size < 1:
        raise ValueError(f"expected n >= 0 and size >= 1, got n={n} and size={size}")
    numbers = torch.rand(n, _NUMBERS, generator=torch.Generator().manual_seed(seed))
    labels = _labels(numbers[:, 0], objects)
    noise = torch.Generator().manual_seed(seed ^ 0x5EED)
    images = torch.empty(n, 3, size, size)
    rows = max(1, _PIXELS_PER_CHUNK // size**2)
    for start in range(0, n, rows):
        chunk = slice(start, start + rows)
        images[chunk] = _paint(_Columns(numbers[chunk, 1:]), labels[chunk], size)
        images[chunk] += NOISE * (torch.rand(images[chunk].shape, generator=noise) - 0.5)
    return images.clamp_(0, 1), labels


def images(n: int, *, size: int, seed: int) -> Tensor:
    """Draw the images of :func:`scenes` alone: (n, 3, size, size) float32 in [0, 1]."""
    return scenes(n, size=size, seed=seed)[0]


class _Columns:
    """Hands out the columns of a table (N, K) of uniform numbers, one after another."""

    def __init__(self, table: Tensor) -> None:
        self._columns = iter(table.unbind(1))

    def next(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return the next number of every row, (N, 1, 1), scaled to [low, high)."""
        return (low + (high - low) * next(self._columns)).view(-1, 1, 1)

    def colour(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return a colour, (N, 3, 1, 1)."""
        return torch.stack([self.next(low, high) for _ in range(3)], dim=1)


def _labels(numbers: Tensor, objects: Sequence[int] | Tensor | None) -> Tensor:
    if objects is None:
        return (numbers * len(CLASSES)).long()
    labels = torch.as_tensor(objects, dtype=torch.int64)
    fits = labels.shape == numbers.shape and bool(((labels >= 0) & (labels < len(CLASSES))).all())
    if not fits:
        raise ValueError(f"expected {len(numbers)} labels in 0..{len(CLASSES) - 1} as objects")
    return labels


def _paint(numbers: _Columns, labels: Tensor, size: int) -> Tensor:
    """Paint scenes (N, 3, size, size); the unit square spans the image, x right and y down."""
    axis = (torch.arange(size) + 0.5) / size
    x, y = axis.view(1, 1, -1), axis.view(1, -1, 1)
    canvas, mean = _gradient(numbers, x, y)
    for _ in range(LEAVES):
        _leaf(canvas, numbers, mean, x, y)
    _object(canvas, numbers, labels, x, y)
    return canvas


def _gradient(numbers: _Columns, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return a linear gradient between two near colours, and its mean colour (N, 3, 1, 1)."""
    mean = numbers.colour(0.3, 0.7)
    step = BACKGROUND_CONTRAST * numbers.colour(-0.5, 0.5)
    angle = numbers.next(0, 2 * math.pi)
    along = torch.cos(angle) * (2 * x - 1) + torch.sin(angle) * (2 * y - 1)
    return mean + step * along.unsqueeze(1), mean


def _leaf(canvas: Tensor, numbers: _Columns, mean: Tensor, x: Tensor, y: Tensor) -> None:
    """Paint one disc on each canvas (N, 3, H, W), in place."""
    centre_x, centre_y = numbers.next(), numbers.next()
    radius = 0.04 + 0.12 * numbers.next() ** 2
    colour = mean + LEAF_CONTRAST * numbers.colour(-0.5, 0.5)
    # Squared distances spare the root; dividing by 2 r turns them into pixels at the rim.
    inside = radius**2 - ((x - centre_x) ** 2 + (y - centre_y) ** 2)
    _blend(canvas, colour, inside / (2 * radius) * x.shape[-1])


def _object(canvas: Tensor, numbers: _Columns, labels: Tensor, x: Tensor, y: Tensor) -> None:
    """Paint one textured, turned object on each canvas (N, 3, H, W), in place."""
    radius = numbers.next(0.26, 0.38)
    u, v = x - numbers.next(0.35, 0.65), y - numbers.next(0.35, 0.65)
    angle = numbers.next(-0.3, 0.3)
    u, v = torch.cos(angle) * u + torch.sin(angle) * v, torch.cos(angle) * v - torch.sin(angle) * u
    inside = -_signed_distance(labels % len(SHAPES), u / radius, v / radius)
    light, dark = _object_colours(numbers, labels)
    ink = _texture(labels // len(SHAPES), u, v, numbers.next(5, 7), numbers.next(0, 2 * math.pi))
    _blend(canvas, torch.lerp(dark, light, ink.unsqueeze(1)), inside * radius * x.shape[-1])


def _object_colours(numbers: _Columns, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two colours (N, 3, 1, 1) of a texture, of a hue that hints at the class."""
    # The mean of three uniform numbers is nearly normal.
    wobble = (numbers.next(-1, 1) + numbers.next(-1, 1) + numbers.next(-1, 1)) / 3
    hue = labels.view(-1, 1, 1) / len(CLASSES) + 2 * HUE_NOISE * wobble
    saturation, value, shade = (
        numbers.next(0.4, 0.9),
        numbers.next(0.7, 1.0),
        numbers.next(0.2, 0.5),
    )
    light = _hsv_to_rgb(hue, saturation, value)
    return light, shade.unsqueeze(1) * light


def _hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Return (N, 3, 1, 1) colours of hue (in turns), saturation and value, each (N, 1, 1)."""
    offsets = torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)
    k = (offsets + 6 * hue.unsqueeze(1)) % 6
    return value.unsqueeze(1) * (1 - saturation.unsqueeze(1) * torch.minimum(k, 4 - k).clamp(0, 1))


def _signed_distance(shapes: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return about the distance to the rim (N, H, W), negative inside, of objects of radius 1."""
    distance = torch.empty(len(shapes), u.shape[-2], u.shape[-1])
    for shape, formula in enumerate(_FORMULAS):
        rows = (shapes == shape).nonzero().squeeze(1)
        distance[rows] = formula(u[rows], v[rows])
    return distance


def _disc(u: Tensor, v: Tensor) -> Tensor:
    return torch.hypot(u, v) - 0.9


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.8


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(v, math.sqrt(0.75) * u.abs() - 0.5 * v) - 0.55


def _cross(u: Tensor, v: Tensor) -> Tensor:
    wide, narrow = torch.maximum(u.abs(), v.abs()), torch.minimum(u.abs(), v.abs())
    return torch.maximum(wide - 1, narrow - 0.3)


def _ring(u: Tensor, v: Tensor) -> Tensor:
    return (torch.hypot(u, v) - 0.75).abs() - 0.25


# In the order of SHAPES.
_FORMULAS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _disc,
    _square,
    _triangle,
    _cross,
    _ring,
)


def _texture(textures: Tensor, u: Tensor, v: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
    """Return how much of the light colour each pixel takes, (N, H, W) in (0, 1)."""
    turns = 2 * math.pi * frequency
    stripes = torch.sin(turns * u + phase)
    checks = torch.sin(0.7 * turns * u + phase) * torch.sin(0.7 * turns * v + phase)
    wave = torch.where(textures.view(-1, 1, 1) == 0, stripes, 2 * checks)
    return torch.sigmoid(4 * wave)


def _blend(canvas: Tensor, colour: Tensor, inside: Tensor) -> None:
    """Paint where ``inside`` (N, H, W), pixels from the rim, is positive; the rim is smooth."""
    alpha = (inside + 0.5).clamp_(0, 1).unsqueeze(1)
    torch.lerp(canvas, colour.expand_as(canvas), alpha.expand_as(canvas), out=canvas)
