"""Data sets that lie on the disk already: what ``cifar10:DIR`` and its like mean.

Nothing is ever fetched, and nothing is unpickled. ``DIR`` is the folder that torchvision calls the
root, or the one that an archive unpacks to:

>>> from encodercheck.images import datasets
>>> cifar = datasets.open("cifar10:/data")  # doctest: +SKIP
>>> cifar.train.images(range(512), size=32), cifar.train.labels[:512]  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from encodercheck.errors import ImagesError
from encodercheck.images import cifar, gtsrb, stl10, svhn
from encodercheck.images.labelled import Labelled, Pictures
from encodercheck.weights.header import located, quoted

Reader = Callable[[Path, str], tuple[Tensor, Pictures]]


@dataclass(frozen=True)
class Layout:
    """Files as an archive unpacks them: in one of ``folders``, which holds one of ``signs``."""

    folders: tuple[str, ...]
    signs: tuple[str, ...]
    read: Reader

    def places(self, folder: Path) -> Iterator[tuple[Path, str]]:
        """Yield every inner folder with each sign."""
        for inner in self.folders:
            for sign in self.signs:
                yield folder / inner, sign


@dataclass(frozen=True)
class Kind:
    """A data set in all the layouts that it comes in."""

    title: str
    classes: int
    layouts: tuple[Layout, ...]
    splits: tuple[str, ...] = ("train", "test")


HERE = "."
KINDS = {
    "cifar10": Kind(
        "CIFAR-10",
        cifar.TEN,
        (
            Layout(
                ("cifar-10-batches-bin", HERE),
                ("test_batch.bin", "data_batch_1.bin"),
                cifar.ten_binary,
            ),
            Layout(
                ("cifar-10-batches-py", HERE), ("test_batch", "data_batch_1"), cifar.ten_pickled
            ),
        ),
    ),
    "cifar100": Kind(
        "CIFAR-100",
        cifar.HUNDRED,
        (
            Layout(("cifar-100-binary", HERE), ("test.bin", "train.bin"), cifar.hundred_binary),
            Layout(("cifar-100-python", HERE), ("test", "train"), cifar.hundred_pickled),
        ),
    ),
    "stl10": Kind(
        "STL-10",
        stl10.CLASSES,
        (
            Layout(
                ("stl10_binary", HERE),
                ("test_X.bin", "train_X.bin", "unlabeled_X.bin"),
                stl10.read,
            ),
        ),
        ("train", "test", "unlabeled"),
    ),
    "svhn": Kind(
        "SVHN",
        svhn.CLASSES,
        (
            Layout(
                (HERE, "svhn", "SVHN"),
                ("test_32x32.mat", "train_32x32.mat", "extra_32x32.mat"),
                svhn.read,
            ),
        ),
        ("train", "test", "extra"),
    ),
    "gtsrb": Kind(
        "GTSRB",
        gtsrb.CLASSES,
        (Layout(("gtsrb/GTSRB", "GTSRB", HERE), (gtsrb.TEST, *gtsrb.TRAINING), gtsrb.read),),
    ),
}
SOURCES = ", ".join(f"{name}:DIR" for name in KINDS)


@dataclass(frozen=True)
class Dataset:
    """A data set in a folder; ``train`` and ``test`` are read when they are first asked for."""

    name: str
    folder: Path
    read: Reader

    @cached_property
    def train(self) -> Labelled:
        """The training split."""
        return self.split("train")

    @cached_property
    def test(self) -> Labelled:
        """The test split."""
        return self.split("test")

    def split(self, name: str) -> Labelled:
        """Read a split: train or test, and what else there is (STL-10 unlabeled, SVHN extra).

        Raises:
            ImagesError: a file is missing or damaged.
            ValueError: the data set has no such split.
        """
        kind = KINDS[self.name]
        if name not in kind.splits:
            raise ValueError(f"{kind.title} has {', '.join(kind.splits)}, and no split {name!r}")
        labels, pictures = self.read(self.folder, name)
        return Labelled(self.name, name, kind.classes, labels, pictures)


def parse(source: str) -> tuple[str, Path] | None:
    """Return a data set's name and folder, None where ``source`` names a folder of images.

    A folder that exists is one whatever it is called.

    >>> parse("cifar10:/data")
    ('cifar10', PosixPath('/data'))
    >>> parse("photos"), parse("C:/photos")
    (None, None)
    """
    name, colon, folder = source.partition(":")
    if not colon or name not in KINDS or is_folder(source):
        return None
    # A shell leaves the tilde behind a colon alone; pathlib stumbles over unknown users.
    return name, Path(os.path.expanduser(folder))  # noqa: PTH111


def is_folder(path: str | Path) -> bool:
    """Tell whether there is such a folder; where pathlib stumbles, as over long names, too."""
    return os.path.isdir(path)  # noqa: PTH112


def open(source: str, *, option: str = "") -> Dataset:
    """Return the data set behind ``NAME:DIR``; no image is read yet.

    Raises:
        ImagesError: there is no such data set, no such folder, or nothing of it in there; messages
            call ``source`` by ``option``.
    """
    parsed = parse(source)
    if parsed is None:
        raise ImagesError(f"{option}{quoted(source)}: no data set; choose one of {SOURCES}")
    name, folder = parsed
    place = f"{option}{name}:{located(folder)}"
    if not is_folder(folder):
        raise ImagesError(
            f"{place}: no such folder; name the one that {KINDS[name].title} was unpacked in"
        )
    looked_for: list[str] = []
    for layout in KINDS[name].layouts:
        for inner, sign in layout.places(folder):
            if os.path.exists(inner / sign):  # noqa: PTH110 - as above
                return Dataset(name, inner, layout.read)
            looked_for.append((inner / sign).relative_to(folder).as_posix())
    raise ImagesError(
        f"{place}: no {KINDS[name].title} in there; looked for {', '.join(looked_for)}; name the "
        "folder that it was unpacked in"
    )
