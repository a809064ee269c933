"""Turn what the user said about images into tensors and a line for the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from encodercheck.errors import ImagesError
from encodercheck.images import pool, procedural
from encodercheck.images.pool import Pool

PROCEDURAL = "procedural"
# Images in memory at once where many are wanted.
PART = 250
# Far from the seeds that people choose: no image of a scan is among the further ones.
FURTHER = 10**9


@dataclass(frozen=True)
class ImageSet:
    """Clean images, (N, 3, H, W) in [0, 1] on the CPU, and where they came from.

    ``digest`` is the same for a folder of the same files, however it is spelled and wherever it
    lies; None for what goes by a name. ``passed_over`` says what in the folder was not looked at.
    """

    images: Tensor
    source: str
    unreadable: int = 0
    digest: str | None = None
    passed_over: str = ""

    def describe(self) -> dict[str, Any]:
        """Return the ``images`` part of a report."""
        return {
            "source": self.source,
            "digest": self.digest,
            "count": len(self.images),
            "unreadable": self.unreadable,
        }


def collect(source: str | None, n: int, *, size: int, seed: int) -> ImageSet:
    """Return ``n`` images of ``size`` x ``size`` pixels, procedural ones for None.

    ``source`` is a folder of images, or a data set on the disk as ``cifar10:DIR``, see
    :mod:`~encodercheck.images.datasets`; of that the test split is drawn from.

    Raises:
        ImagesError: the folder is missing, is damaged or holds fewer than ``n`` readable images.
    """
    if source is None:
        return ImageSet(procedural.images(n, size=size, seed=seed), PROCEDURAL)
    found = pool.opened(source)
    images, unreadable = found.images(n, size=size, seed=seed)
    return ImageSet(images, found.kind, unreadable, found.digest(), found.passed_over())


def kind(source: str | None) -> str:
    """Return what a report calls the images of ``source``: a data set by its name alone."""
    return PROCEDURAL if source is None else pool.opened(source).kind


def digest(source: str | None) -> str | None:
    """Return what folders of the same files have in common, see :class:`ImageSet`.

    Raises:
        ImagesError: there is no such folder.
    """
    return None if source is None else pool.opened(source).digest()


@dataclass(frozen=True)
class Further:
    """Up to ``n`` clean images, none of which is among the first ``after`` of a scan.

    ``source`` is as for :func:`collect`; ``option`` is what to call it in errors.
    """

    source: str | None
    n: int
    size: int
    seed: int
    after: int = 0
    option: str = "--images "

    def parts(self) -> Iterator[Tensor]:
        """Yield them in parts (N, 3, size, size) in [0, 1]; a source may hold fewer than ``n``.

        Raises:
            ImagesError: the source cannot be read.
        """
        if self._pool is None:
            for start in range(0, self.n, PART):
                count = min(PART, self.n - start)
                yield procedural.images(count, size=self.size, seed=self._seed(start))
            return
        read: list[Tensor] = []
        drawn = self._pool.draw(size=self.size, seed=self.seed)
        for image in islice(drawn, self.after, self.after + self.n):
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
        if self._pool is not None and self._pool.count() < self.after + fewest:
            raise ImagesError(
                f"{self.option}{self.source}: {self._pool.holds()}, and a decoder takes "
                f"{self.after + fewest} or more; add some, or leave {self.option.strip()} out to "
                "use the embedded generator"
            )

    def identity(self) -> dict[str, Any]:
        """Return what tells these images from others, reading few of them or none."""
        facts = {"n": self.n, "size": self.size, "seed": self.seed, "after": self.after}
        if self._pool is None:
            return {"source": PROCEDURAL, **facts, "torch": torch.__version__}
        return {"source": self._pool.kind, **facts, **self._pool.facts(self.seed)}

    def describe(self) -> str:
        """Say where they come from."""
        return PROCEDURAL if self._pool is None else self._pool.kind

    def _seed(self, start: int) -> int:
        return FURTHER + 1000 * self.seed + start // PART

    @cached_property
    def _pool(self) -> Pool | None:
        return None if self.source is None else pool.opened(self.source, option=self.option)
