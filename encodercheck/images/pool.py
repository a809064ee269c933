"""Images on the disk to draw from by a seed: a folder of files, or the test split of a data set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from encodercheck.cache import content_hash
from encodercheck.errors import ImagesError
from encodercheck.images import datasets, folder
from encodercheck.images.labelled import Labelled
from encodercheck.weights.header import quoted


class Pool(Protocol):
    """Images in the order that a seed draws them in."""

    @property
    def kind(self) -> str:
        """What a report calls them."""
        ...

    def count(self) -> int:
        """Return how many there are, or files that should be images."""
        ...

    def digest(self) -> str | None:
        """Return what the same images have in common wherever they lie; None where a name does."""
        ...

    def holds(self) -> str:
        """Say how many there are."""
        ...

    def passed_over(self) -> str:
        """Say what in the folder was not looked at; "" for nothing."""
        ...

    def images(self, n: int, *, size: int, seed: int) -> tuple[Tensor, int]:
        """Return the first ``n``, (n, 3, size, size) in [0, 1], and how many were passed over."""
        ...

    def draw(self, *, size: int, seed: int) -> Iterator[Tensor]:
        """Yield all that can be read, each (3, size, size) in [0, 1]."""
        ...

    def facts(self, seed: int) -> dict[str, Any]:
        """Return what tells these images from others."""
        ...


@dataclass(frozen=True)
class FolderPool:
    """The image files of a folder and its subfolders."""

    path: Path
    kind: str
    option: str

    def count(self) -> int:
        """Return how many files there are."""
        return len(folder.listing(self.path, option=self.option))

    def digest(self) -> str | None:
        """Return the SHA-256 of the files' names, inside the folder, and sizes; none is read."""
        files = folder.listing(self.path, option=self.option)
        states = [[f.relative_to(self.path).as_posix(), f.stat().st_size] for f in files]
        return content_hash(sorted(states))

    def holds(self) -> str:
        """Say how many files there are."""
        return f"holds {self.count()} image files"

    def passed_over(self) -> str:
        """Say which links to folders were not followed."""
        return folder.looked_through(self.path, option=self.option)[1]

    def images(self, n: int, *, size: int, seed: int) -> tuple[Tensor, int]:
        """Return the first ``n`` that can be read, and how many files could not."""
        return folder.images(self.path, n, size=size, seed=seed)

    def draw(self, *, size: int, seed: int) -> Iterator[Tensor]:
        """Yield all that can be read."""
        read = folder.read_all(self._files(seed), size)
        return (image for _, image in read if image is not None)

    def facts(self, seed: int) -> dict[str, Any]:
        """Return names, sizes and times of the files; none is read."""
        states = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in self._files(seed)]
        return {"files": states}

    def _files(self, seed: int) -> list[Path]:
        return folder.drawn(folder.listing(self.path, option=self.option), seed)


@dataclass(frozen=True)
class DatasetPool:
    """The test split of a data set: encoders are seldom trained on that."""

    source: str
    kind: str
    option: str

    def count(self) -> int:
        """Return how many images there are."""
        return len(self._split)

    def digest(self) -> str | None:
        """Return None: a data set is known by its name."""
        return None

    def holds(self) -> str:
        """Say how many images there are."""
        return f"holds {self.count()} test images"

    def passed_over(self) -> str:
        """Return "": a data set is read as a whole."""
        return ""

    def images(self, n: int, *, size: int, seed: int) -> tuple[Tensor, int]:
        """Return the first ``n``; each of a data set's images can be read."""
        if self.count() < n:
            raise ImagesError(
                f"{self.option}{self.source}: {self.holds()}, but {n} are needed; name a folder "
                f"with all of them, or leave {self.option.strip()} out to use the embedded "
                "generator"
            )
        return self._split.images(self._order(seed)[:n], size), 0

    def draw(self, *, size: int, seed: int) -> Iterator[Tensor]:
        """Yield all images."""
        return (image.float() / 255 for image in self._split.stream(self._order(seed), size))

    def facts(self, seed: int) -> dict[str, Any]:
        """Return the digest of the images: where they are kept makes no difference."""
        return {"digest": self._split.digest()}

    def _order(self, seed: int) -> list[int]:
        return folder.drawn(range(self.count()), seed)

    @cached_property
    def _split(self) -> Labelled:
        return datasets.open(self.source, option=self.option).test


def opened(source: str, *, option: str = "--images ") -> Pool:
    """Return the images that ``source`` names: a folder, or a data set as ``cifar10:DIR``.

    Nothing is read yet; ``option`` is what messages call them.

    Raises:
        ImagesError: it names neither.
    """
    parsed = datasets.parse(source)
    if parsed is not None:
        return DatasetPool(source, parsed[0], option)
    # One letter would be a drive.
    if re.match(r"[\w-]{2,}:", source) and not datasets.is_folder(source):
        raise ImagesError(
            f"{option}{quoted(source)}: no such folder, and no data set; those are "
            f"{datasets.SOURCES}"
        )
    return FolderPool(Path(source), source, option)
