"""Clean images from a folder of image files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from encodercheck.errors import ImagesError

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
    if not folder.is_dir():
        raise ImagesError(f"--images {folder}: no such folder")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in EXTENSIONS and f.is_file())
    if len(files) < n:
        raise ImagesError(
            f"--images {folder}: holds {len(files)} image files, but {n} are needed; add "
            "more, or leave --images out to use the embedded generator"
        )
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist()
    read: list[Tensor] = []
    unreadable = 0
    for image in _decode((files[i] for i in order), size):
        unreadable += image is None
        if image is not None:
            read.append(image)
        if len(read) == n:
            return torch.stack(read), unreadable
    raise ImagesError(
        f"--images {folder}: {unreadable} of its {len(files)} files are not images that can be "
        f"read, which leaves {len(read)} of the {n} needed"
    )


def _decode(files: Iterator[Path], size: int) -> Iterator[Tensor | None]:
    for file in files:
        try:
            with Image.open(file) as image:
                fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
        except (
            OSError,
            ValueError,
            SyntaxError,
            UnidentifiedImageError,
            Image.DecompressionBombError,
        ):
            yield None
            continue
        yield torch.from_numpy(np.array(fitted)).permute(2, 0, 1).float() / 255
