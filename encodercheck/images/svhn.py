"""SVHN, cropped digits (Netzer et al., 2011), as it comes: files of MATLAB 5."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from encodercheck.errors import ImagesError
from encodercheck.images import matlab
from encodercheck.images.binary import AGAIN
from encodercheck.images.labelled import Arrays, Pictures, checked_labels
from encodercheck.weights.header import located

SIDE = 32
CLASSES = 10


def read(folder: Path, split: str) -> tuple[Tensor, Pictures]:
    """Read a split: train, test or extra."""
    path = folder / f"{split}_32x32.mat"
    content = matlab.arrays(path, ("X", "y"))
    pixels, labels = content["X"], content["y"]
    count = pixels.shape[-1]
    fits = pixels.dtype == np.uint8 and pixels.shape == (SIDE, SIDE, 3, count) and count > 0
    if not fits or sorted(labels.shape) != sorted((1, count)):
        raise ImagesError(
            f"{located(path)}: not SVHN's cropped digits, an array X ({SIDE}, {SIDE}, 3, N) of 8 "
            f"bits and labels y (N, 1); {AGAIN}"
        )
    # The digit 0 is written as 10.
    digits = checked_labels(path, labels.reshape(-1), CLASSES, first=1).add_(1) % CLASSES
    return digits, Arrays(pixels.transpose(3, 2, 0, 1))
