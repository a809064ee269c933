"""Images as grids of patches, of which a decoder sees a few: the geometry of masked reconstruction.

Masked autoencoders (He et al., CVPR 2022) hide most patches of an image and reconstruct them; DeDe
(Hou, Li & Yao, CVPR 2025) gives the decoder an embedding beside the few that stay visible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# More pixels than these to a patch's side cost time and tell a decoder nothing that an embedding
# holds: larger patches are shrunk to this many.
MOST_DETAIL = 4


@dataclass(frozen=True)
class PatchGrid:
    """A square image of ``side`` x ``side`` patches, each decoded as ``detail`` x ``detail``.

    >>> PatchGrid.of(224, patch=16)
    PatchGrid(side=14, detail=4)
    """

    side: int
    detail: int

    @classmethod
    def of(cls, image_size: int, *, patch: int | None = None) -> PatchGrid:
        """Return the grid for images of ``image_size`` pixels, in patches of ``patch`` pixels.

        An eighth of the image where ``patch`` is None. Where it does not divide the image, the
        grid has the nearest number of patches.

        Raises:
            ValueError: fewer than two patches fit.
        """
        patch = max(1, image_size // 8) if patch is None else patch
        if not 1 <= patch <= image_size // 2:
            raise ValueError(
                f"patches of {patch} pixels on images of {image_size}: choose 1 to "
                f"{image_size // 2}"
            )
        return cls(round(image_size / patch), min(patch, MOST_DETAIL))

    @property
    def count(self) -> int:
        """The number of patches."""
        return self.side**2

    @property
    def pixels(self) -> int:
        """The side of the decoded image, in pixels."""
        return self.side * self.detail

    def shrink(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) at the decoded size, (N, C, pixels, pixels)."""
        if images.shape[-1] == self.pixels:
            return images
        return functional.adaptive_avg_pool2d(images, self.pixels)

    def cut(self, images: Tensor) -> Tensor:
        """Return decoded images (N, 3, pixels, pixels) as patches (N, count, 3 * detail**2)."""
        return functional.unfold(images, self.detail, stride=self.detail).transpose(1, 2)

    def join(self, patches: Tensor) -> Tensor:
        """Undo :meth:`cut`."""
        return functional.fold(
            patches.transpose(1, 2), self.pixels, self.detail, stride=self.detail
        )

    def spread(self, weights: Tensor) -> Tensor:
        """Return what patches have (N, count) as what pixels have (N, 1, pixels, pixels)."""
        small = weights.view(-1, 1, self.side, self.side)
        return small.repeat_interleave(self.detail, 2).repeat_interleave(self.detail, 3)

    def visible(self, ratio: float, count: int, generator: torch.Generator) -> Tensor:
        """Draw ``count`` sets of visible patches, (count, patches) of 0 and 1, on the CPU.

        A part ``ratio`` of the patches is hidden, at least one of them, and at least one is not:
        with 64 patches and a ratio of 0.99 none would be left.

        Raises:
            ValueError: the ratio lies outside (0, 1).
        """
        if not 0 < ratio < 1:
            raise ValueError(f"a mask ratio of {ratio}: must lie between 0 and 1")
        kept = min(max(1, math.floor(self.count * (1 - ratio) + 1e-9)), self.count - 1)
        order = torch.rand(count, self.count, generator=generator).argsort(1)
        return torch.zeros(count, self.count).scatter_(1, order[:, :kept], 1.0)

    def errors(self, reconstructed: Tensor, images: Tensor) -> Tensor:
        """Return the mean squared error of each patch, (N, count)."""
        squares = (reconstructed - images).square().mean(1, keepdim=True)
        return functional.avg_pool2d(squares, self.detail).flatten(1)

    def touched(self, mask: Tensor, *, visible: float) -> Tensor:
        """Return which patches a trigger's ``mask`` (1, H, W) touches, (count,) of 0 and 1.

        A pixel counts where the mask is above ``visible``.
        """
        marked = (mask > visible).float().unsqueeze(0)
        return functional.adaptive_max_pool2d(marked, self.side).flatten()
