"""Clean images from a folder of image files."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from encodercheck.errors import ImagesError

# Decoding leaves the interpreter free: a few threads keep an encoder fed, and few images in memory.
READERS = 4
AHEAD = 64

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

    Raises:
        ImagesError: no such folder; ``option`` is what the message calls it.
    """
    if not folder.is_dir():
        raise ImagesError(f"{option}{folder}: no such folder")
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in EXTENSIONS and f.is_file())


def drawn(files: list[Path], seed: int) -> list[Path]:
    """Return the files in the order that ``seed`` draws them in."""
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist()
    return [files[i] for i in order]


def read_all(files: Iterable[Path], size: int) -> Iterator[tuple[Path, Tensor | None]]:
    """Yield every file with its image (3, size, size) in [0, 1], None where it cannot be decoded.

    In order, read a little ahead by a few threads.
    """
    waiting: deque[tuple[Path, Future[Tensor | None]]] = deque()
    with ThreadPoolExecutor(READERS) as pool:
        try:
            for file in files:
                waiting.append((file, pool.submit(read, file, size)))
                if len(waiting) > AHEAD:
                    first, image = waiting.popleft()
                    yield first, image.result()
            while waiting:
                first, image = waiting.popleft()
                yield first, image.result()
        finally:
            # Who asks for no more waits for what is being read, not for what was to come.
            pool.shutdown(cancel_futures=True)


def read(file: Path, size: int) -> Tensor | None:
    """Return the image in a file, (3, size, size) in [0, 1], or None where it cannot be decoded.

    It is resized to ``size`` on its shorter side and cropped at its centre.
    """
    try:
        with Image.open(file) as image:
            fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    except Exception:
        # On damaged files decoders fail in any way, with a TypeError too.
        return None
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1).float() / 255
