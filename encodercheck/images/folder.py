"""Clean images from a folder of image files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from encodercheck.errors import ConfigError, ImagesError
from encodercheck.walking import Walk

# Decoding leaves the interpreter free: a few threads keep an encoder fed, and few images in memory.
READERS = 4
AHEAD = 64
MOST_FILES = 10_000_000

T = TypeVar("T")
Read = TypeVar("Read")

EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def images(folder: Path, n: int, *, size: int, seed: int) -> tuple[Tensor, int]:
    """Read ``n`` images of a folder (and its subfolders), drawn by ``seed``.

    Each is resized to ``size`` on its shorter side and cropped at its centre. Files that
    cannot be decoded are passed over.

    Returns:
        The images, (n, 3, size, size) in [0, 1], and how many files were passed over.

    Raises:
        ImagesError: no such folder, or it holds fewer than ``n`` readable images.
    """
    files = listing(folder)
    if len(files) < n:
        raise ImagesError(
            f"--images {folder}: holds {len(files)} image files, but {n} are needed; add "
            "more, or leave --images out to use the embedded generator"
        )
    images: list[Tensor] = []
    unreadable = 0
    for _, image in read_all(drawn(files, seed), size):
        unreadable += image is None
        if image is not None:
            images.append(image)
        if len(images) == n:
            return torch.stack(images), unreadable
    raise ImagesError(
        f"--images {folder}: {unreadable} of its {len(files)} files are not images that can be "
        f"read, which leaves {len(images)} of the {n} needed"
    )


def listing(folder: Path, *, option: str = "--images ") -> list[Path]:
    """Return the image files of a folder and its subfolders, by name.

    Hidden ones too: what is screened must not be for its name to say.

    Raises:
        ImagesError: no such folder, or there is too much in it; ``option`` is what the message
            calls it.
    """
    return looked_through(folder, option=option)[0]


def looked_through(folder: Path, *, option: str = "--images ") -> tuple[list[Path], str]:
    """Return what :func:`listing` does, and what was passed over, as links to folders; "" for none.

    Raises:
        ImagesError: see :func:`listing`.
    """
    if not folder.is_dir():
        raise ImagesError(f"{option}{folder}: no such folder")
    walk = Walk(hidden=True, most=MOST_FILES)
    try:
        files = [Path(file) for file in walk.files(str(folder))]
    except ConfigError as error:
        raise ImagesError(f"{option}{error}") from error
    found = sorted(f for f in files if f.suffix.lower() in EXTENSIONS and f.is_file())
    return found, walk.skipped()


def drawn(items: Sequence[T], seed: int) -> list[T]:
    """Return files, or what else there is, in the order that ``seed`` draws them in."""
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed)).tolist()
    return [items[i] for i in order]


def read_all(files: Iterable[Path], size: int) -> Iterator[tuple[Path, Tensor | None]]:
    """Yield every file with its image (3, size, size) in [0, 1], None where it cannot be decoded.

    In order, see :func:`ahead`.
    """
    return ahead(files, lambda file: read(file, size))


def ahead(items: Iterable[T], reading: Callable[[T], Read]) -> Iterator[tuple[T, Read]]:
    """Yield every item with what is read for it; in order, a little ahead, by a few threads."""
    waiting: deque[tuple[T, Future[Read]]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(reading, item)))
                if len(waiting) > AHEAD:
                    first, found = waiting.popleft()
                    yield first, found.result()
            while waiting:
                first, found = waiting.popleft()
                yield first, found.result()
        finally:
            # Who asks for no more waits for what is being read, not for what was to come.
            pool.shutdown(cancel_futures=True)


def read(file: Path, size: int) -> Tensor | None:
    """Return the image in a file, (3, size, size) in [0, 1], or None where it cannot be decoded.

    It is resized to ``size`` on its shorter side and cropped at its centre.
    """
    try:
        with Image.open(file) as image:
            return fitted(image.convert("RGB"), size).float() / 255
    except Exception:
        # On damaged files decoders fail in any way, with a TypeError too.
        return None


def fitted(image: Image.Image, size: int) -> Tensor:
    """Return an RGB image as 8 bits, (3, size, size): resized on its shorter side, and cropped."""
    small = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)
