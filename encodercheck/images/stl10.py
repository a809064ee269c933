"""STL-10 (Coates, Lee and Ng, AISTATS 2011), as it comes: files of bytes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from encodercheck.images.binary import mapped
from encodercheck.images.labelled import (
    UNLABELLED,
    Arrays,
    Pictures,
    checked_labels,
    require_counts,
)

SIDE = 96
CLASSES = 10


def read(folder: Path, split: str) -> tuple[Tensor, Pictures]:
    """Read a split of stl10_binary; ``unlabeled`` is one too."""
    path = folder / f"{split}_X.bin"
    # Column by column in the file.
    pixels = mapped(path, 3, SIDE, SIDE).transpose(0, 1, 3, 2)
    if split == "unlabeled":
        return torch.full((len(pixels),), UNLABELLED), Arrays(pixels)
    labels = folder / f"{split}_y.bin"
    found = checked_labels(labels, mapped(labels), CLASSES, first=1)
    require_counts(path, len(pixels), len(found))
    return found, Arrays(pixels)
