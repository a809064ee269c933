"""The clean images of a scan, in two parts that never meet."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from encodercheck.errors import ImagesError


@dataclass(frozen=True)
class CleanSplit:
    """Clean images: ``search`` (N, 3, H, W) to look for triggers on, ``held_out`` to score them."""

    search: Tensor
    held_out: Tensor

    @classmethod
    def of(cls, images: Tensor, search: int) -> CleanSplit:
        """Return the first ``search`` images, and the rest.

        Raises:
            ImagesError: nothing is left to hold out.
        """
        if len(images) <= search:
            raise ImagesError(
                f"{len(images)} images are too few: {search} go into the search for triggers "
                "and others must be held out"
            )
        return cls(images[:search], images[search:])

    def clone(self) -> CleanSplit:
        """Return a copy that shares no memory with this one."""
        return CleanSplit(self.search.clone(), self.held_out.clone())
