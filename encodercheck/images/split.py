"""The clean images of a scan, in two parts that never meet."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from encodercheck.errors import ImagesError

CHUNK = 32


@dataclass(frozen=True)
class CleanSplit:
    """Clean images: ``search`` (N, 3, H, W) to look for triggers on, ``held_out`` to score them."""

    search: Tensor
    held_out: Tensor


@dataclass(frozen=True)
class CleanImages:
    """The clean images of a scan; every call returns new tensors.

    ``pixels`` are (N, 3, H, W) of 8 bits, as pictures are: a quarter of the memory.
    """

    pixels: Tensor
    search: int

    @classmethod
    def of(cls, images: Tensor, search: int) -> CleanImages:
        """Keep images in [0, 1], the first ``search`` of them to search on.

        Raises:
            ImagesError: nothing is left to hold out.
        """
        if len(images) <= search:
            raise ImagesError(
                f"{len(images)} images are too few: {search} go into the search for triggers "
                "and others must be held out"
            )
        pixels = torch.empty(images.shape, dtype=torch.uint8)
        # A few at a time: another copy of all in floats would outweigh what this saves.
        for own, part in zip(torch.split(pixels, CHUNK), torch.split(images, CHUNK), strict=True):
            own.copy_((part * 255).round_().clamp_(0, 255))
        return cls(pixels, search)

    def search_images(self) -> Tensor:
        """Return the images to look for triggers on, (N, 3, H, W) in [0, 1]."""
        return _floats(self.pixels[: self.search])

    def held_out_images(self, most: int | None = None) -> Tensor:
        """Return the images that no trigger is searched on, (N, 3, H, W) in [0, 1].

        The first ``most`` of them, where that is given.
        """
        return _floats(self.pixels[self.search :][:most])

    def split(self) -> CleanSplit:
        """Return both parts."""
        return CleanSplit(self.search_images(), self.held_out_images())


def _floats(pixels: Tensor) -> Tensor:
    return pixels.float().div_(255)
