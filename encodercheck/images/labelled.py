"""Images with labels: one split of a data set, read as it is asked for."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from encodercheck.errors import ImagesError
from encodercheck.images.binary import AGAIN
from encodercheck.images.folder import ahead, fitted
from encodercheck.weights.header import located

UNLABELLED = -1
# Images that a digest looks at: enough to tell any two data sets apart, in a second.
DIGESTED = 1000


class Pictures(Protocol):
    """Pictures by number."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def open(self, index: int) -> Image.Image:
        """Return one, in RGB; raise ImagesError where it cannot be read."""
        ...


class Arrays:
    """Pictures as arrays (N, 3, H, W) of 8 bits, in memory or mapped, one after another."""

    def __init__(self, *parts: NDArray[np.uint8]) -> None:
        self._parts = parts
        # Where each part starts, and where the last one ends.
        self._starts = [0, *accumulate(len(part) for part in parts)]

    def __len__(self) -> int:
        return self._starts[-1]

    def open(self, index: int) -> Image.Image:
        """Return one as a picture."""
        part = bisect_right(self._starts, index) - 1
        pixels = self._parts[part][index - self._starts[part]]
        return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


@dataclass(frozen=True)
class Files:
    """Pictures in files of their own, of any size."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int) -> Image.Image:
        """Return one, in RGB; raise ImagesError where it cannot be read."""
        path = self.paths[index]
        try:
            with Image.open(path) as image:
                converted: Image.Image = image.convert("RGB")
                return converted
        except Exception as error:
            # On damaged files decoders fail in any way.
            raise ImagesError(f"{located(path)}: no image that can be read; {AGAIN}") from error


@dataclass(frozen=True)
class Labelled:
    """A split of a data set: ``labels`` (N,) in 0..classes-1, -1 for unlabelled images."""

    name: str
    split: str
    classes: int
    labels: Tensor
    pictures: Pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def images(self, indices: Iterable[int], size: int) -> Tensor:
        """Return the images of these numbers, (n, 3, size, size) in [0, 1].

        Each is resized to ``size`` on its shorter side and cropped at its centre.

        Raises:
            ImagesError: a file cannot be read.
            IndexError: there is no such image.
        """
        return self.pixels(indices, size).float().div_(255)

    def pixels(self, indices: Iterable[int], size: int) -> Tensor:
        """Return what :meth:`images` does in 8 bits, a quarter of the memory."""
        numbers = list(indices)
        pixels = torch.empty(len(numbers), 3, size, size, dtype=torch.uint8)
        for row, image in zip(pixels, self.stream(numbers, size), strict=True):
            row.copy_(image)
        return pixels

    def stream(self, indices: Iterable[int], size: int) -> Iterator[Tensor]:
        """Yield what :meth:`pixels` returns one by one, (3, size, size), read a little ahead."""
        return (image for _, image in ahead(indices, lambda index: self._fit(int(index), size)))

    def digest(self) -> str:
        """Return the SHA-256, in hexadecimal, of what the split holds, wherever it is kept.

        It covers the name, the number of images, all labels, and size and pixels of at most
        ``DIGESTED`` images spread evenly over the split: a change to another image goes unnoticed.
        Files of different formats that hold the same images have the same digest.

        Raises:
            ImagesError: a file cannot be read.
        """
        count = len(self)
        found = hashlib.sha256(f"{self.name} {self.split} {count} {self.classes}\n".encode())
        found.update(self.labels.numpy().astype("<i8").tobytes())
        for index in np.linspace(0, count - 1, min(count, DIGESTED), dtype=np.int64).tolist():
            image = self.pictures.open(index)
            found.update(f"{image.width}x{image.height}\n".encode())
            found.update(image.tobytes())
        return found.hexdigest()

    def _fit(self, index: int, size: int) -> Tensor:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} {self.split} images, not {index}")
        return fitted(self.pictures.open(index), size)


def checked_labels(path: Path, values: NDArray[Any], classes: int, first: int = 0) -> Tensor:
    """Return the labels (N,) of a file as numbers from 0; in the file they start at ``first``.

    Raises:
        ImagesError: one of them is out of range.
    """
    last = first + classes - 1
    wrong = values[(values < first) | (values > last)]
    if len(wrong):
        raise ImagesError(
            f"{located(path)}: has the label {int(wrong[0])}, but they run from {first} to {last}; "
            f"{AGAIN}"
        )
    return torch.from_numpy(values.astype(np.int64) - first)


def require_counts(path: Path, images: int, labels: int) -> None:
    """Demand a label for every image of a file.

    Raises:
        ImagesError: there are more of one than of the other.
    """
    if images != labels:
        raise ImagesError(f"{located(path)}: holds {images} images, but {labels} labels; {AGAIN}")
