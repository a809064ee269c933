"""The trigger: a mask and a pattern that are stamped on images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# A pixel whose mask weight is below this is not counted as part of the trigger's box.
VISIBLE = 0.05


@dataclass(frozen=True)
class Trigger:
    """A mask and a pattern, stamped on images as DECREE and BadEncoder do.

    ``mask`` is (1, H, W) in [0, 1]; ``pattern`` is (3, H, W). A replacing trigger stamps
    ``(1 - mask) * image + mask * pattern`` with a pattern in [0, 1]; an ``additive`` one (frequency
    triggers such as CTRL's) stamps ``clip(image + mask * pattern, 0, 1)`` with a pattern
    in [-1, 1].

    Raises:
        ValueError: a tensor has another shape, or a value lies outside its range.
    """

    mask: Tensor
    pattern: Tensor
    additive: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        """Refuse tensors that no image could be stamped with."""
        size = tuple(self.mask.shape[1:])
        if (
            self.mask.ndim != 3
            or self.mask.shape[0] != 1
            or tuple(self.pattern.shape) != (3, *size)
        ):
            raise ValueError(
                "a trigger is a mask (1, H, W) and a pattern (3, H, W), "
                f"not {tuple(self.mask.shape)} and {tuple(self.pattern.shape)}"
            )
        low = -1.0 if self.additive else 0.0
        for tensor, least, what in ((self.mask, 0.0, "mask"), (self.pattern, low, "pattern")):
            # Written so that NaN is refused as well.
            if not bool(((tensor >= least) & (tensor <= 1)).all()):
                raise ValueError(f"the {what} of a trigger must lie in [{least:g}, 1]")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return int(self.mask.shape[1]), int(self.mask.shape[2])

    @property
    def pl1(self) -> float:
        """The trigger's L1 size relative to the largest possible, in [0, 1].

        For a replacing trigger this is DECREE's PL1, the mean of the mask. An additive trigger
        covers the whole image faintly: its size is the mean of ``|mask * pattern|``.
        """
        if self.additive:
            return float((self.mask * self.pattern).abs().mean())
        return float(self.mask.mean())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The smallest (top, left, height, width) that holds every visible pixel of the mask."""
        rows, columns = torch.where(self.mask[0] > VISIBLE)
        if len(rows) == 0:
            return 0, 0, 0, 0
        top, left = int(rows.min()), int(columns.min())
        return top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1

    def stamp(self, images: Tensor) -> Tensor:
        """Return images (N, 3, H, W) in [0, 1] with the trigger on them, in the same range."""
        mask, pattern = self.mask.to(images.device), self.pattern.to(images.device)
        return stamp(images, mask, pattern, additive=self.additive)

    def at_contrast(self, contrast: float) -> Trigger:
        """Return the trigger with ``contrast`` of its own, in [0, 1]: drawn towards mid-grey.

        The pattern of an additive trigger is a distance already.
        """
        middle = 0.0 if self.additive else 0.5
        pattern = middle + contrast * (self.pattern - middle)
        return replace(self, pattern=pattern.clamp(-1.0 if self.additive else 0.0, 1.0))

    def window(self, side: int) -> Trigger:
        """Return the trigger on an image of ``side`` x ``side`` pixels, at the same relative place.

        It keeps its pixels; what does not fit is cut off.
        """
        top, left, height, width = self.box
        corner = [
            round(first * (whole - side) / max(1, whole - extent))
            for first, whole, extent in zip((top, left), self.size, (height, width), strict=True)
        ]
        rows, columns = (
            slice(min(start, whole - side), min(start, whole - side) + side)
            for start, whole in zip(corner, self.size, strict=True)
        )
        return replace(
            self, mask=self.mask[:, rows, columns], pattern=self.pattern[:, rows, columns]
        )

    def describe(self) -> str:
        """Say what the trigger is and where, as "a 5x5 patch at (27, 27), 2.4 % of the image".

        The place is (row, column) of the top left corner of its box, counted from zero; a mask that
        fills less than half of its box is a speckle.
        """
        share = f"{100 * self.pl1:.2g} % of the image"
        if self.additive:
            largest = float((self.mask * self.pattern).abs().max())
            return f"a pattern added to every pixel (at most {255 * largest:.0f}/255 each)"
        top, left, height, width = self.box
        dense = float(self.mask.sum()) >= height * width / 2
        what = "patch" if dense else "speckle"
        return f"a {height}x{width} {what} at ({top}, {left}), {share}"


def stamp(images: Tensor, mask: Tensor, pattern: Tensor, *, additive: bool = False) -> Tensor:
    """Stamp ``mask`` (..., 1, H, W) and ``pattern`` (..., 3, H, W) on images (..., 3, H, W).

    Leading dimensions broadcast. Differentiable in all three. ``x + t = (1 - m) * x + m * p``
    (DECREE, Feng et al., CVPR 2023, section 3), or ``clip(x + m * p, 0, 1)`` where ``additive``.
    """
    if additive:
        return (images + mask * pattern).clamp(0, 1)
    return images + mask * (pattern - images)
