"""Turn what the user said about images into tensors and a line for the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encodercheck.errors import ImagesError
from encodercheck.images import folder, procedural

PROCEDURAL = "procedural"
# Images in memory at once where many are wanted.
PART = 250
# Far from the seeds that people choose: no image of a scan is among the further ones.
FURTHER = 10**9


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
        return ImageSet(procedural.images(n, size=size, seed=seed), PROCEDURAL)
    images, unreadable = folder.images(Path(source), n, size=size, seed=seed)
    return ImageSet(images, source, unreadable)


@dataclass(frozen=True)
class Further:
    """Up to ``n`` clean images, none of which is among the first ``after`` of a scan.

    ``source`` is a folder, or None for procedural images; ``option`` is what to call it in errors.
    """

    source: str | None
    n: int
    size: int
    seed: int
    after: int = 0
    option: str = "--images "

    def parts(self) -> Iterator[Tensor]:
        """Yield them in parts (N, 3, size, size) in [0, 1]; a folder may hold fewer than ``n``.

        Raises:
            ImagesError: no such folder.
        """
        if self.source is None:
            for start in range(0, self.n, PART):
                count = min(PART, self.n - start)
                yield procedural.images(count, size=self.size, seed=self._seed(start))
            return
        read: list[Tensor] = []
        wanted = iter(range(self.after + self.n))
        images = (image for _, image in folder.read_all(self._files(), self.size))
        for number, image in zip(wanted, (i for i in images if i is not None), strict=False):
            if number >= self.after:
                read.append(image)
            if len(read) == PART:
                yield torch.stack(read)
                read = []
        if read:
            yield torch.stack(read)

    def require(self, fewest: int) -> None:
        """Demand that there are ``fewest`` images or more, as far as the number of files tells.

        Raises:
            ImagesError: there are not.
        """
        if self.source is None:
            return
        count = len(self._files())
        if count < self.after + fewest:
            raise ImagesError(
                f"{self.option}{self.source}: holds {count} image files, and a decoder takes "
                f"{self.after + fewest} or more; add some, or leave {self.option.strip()} out to "
                "use the embedded generator"
            )

    def identity(self) -> dict[str, Any]:
        """Return what tells these images from others, without reading them."""
        facts = {"n": self.n, "size": self.size, "seed": self.seed, "after": self.after}
        if self.source is None:
            return {"source": PROCEDURAL, **facts, "torch": torch.__version__}
        states = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in self._files()]
        return {"source": self.source, **facts, "files": states}

    def describe(self) -> str:
        """Say where they come from."""
        return PROCEDURAL if self.source is None else self.source

    def _seed(self, start: int) -> int:
        return FURTHER + 1000 * self.seed + start // PART

    def _files(self) -> list[Path]:
        assert self.source is not None  # or there are no files
        return folder.drawn(folder.listing(Path(self.source), option=self.option), self.seed)
