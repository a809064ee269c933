"""Turn what the user said about images into tensors and a line for the report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from encodercheck.images import folder, procedural


@dataclass(frozen=True)
class ImageSet:
    """Clean images, (N, 3, H, W) in [0, 1] on the CPU, and where they came from."""

    images: Tensor
    source: str
    unreadable: int = 0

    def describe(self) -> dict[str, Any]:
        """Return the ``images`` part of a report."""
        return {"source": self.source, "count": len(self.images), "unreadable": self.unreadable}


def collect(source: str | None, n: int, *, size: int, seed: int) -> ImageSet:
    """Return ``n`` images of ``size`` x ``size`` pixels: a folder's, or procedural ones for None.

    Raises:
        ImagesError: the folder is missing or holds fewer than ``n`` readable images.
    """
    if source is None:
        return ImageSet(procedural.images(n, size=size, seed=seed), "procedural")
    images, unreadable = folder.images(Path(source), n, size=size, seed=seed)
    return ImageSet(images, source, unreadable)
