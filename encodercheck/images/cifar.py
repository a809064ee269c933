"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): the binary version, and the one for Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encodercheck.errors import ImagesError
from encodercheck.images import pickled
from encodercheck.images.binary import AGAIN, contents, mapped
from encodercheck.images.labelled import Arrays, Pictures, checked_labels, require_counts
from encodercheck.weights.header import located, quoted

# Labels (N,) and pixels (N, 3, 32, 32).
Batch = tuple[Tensor, NDArray[np.uint8]]

SIDES = (3, 32, 32)
BYTES = 3 * 32 * 32
TEN, HUNDRED = 10, 100
# Twice what CIFAR-100's training batch takes: text of Python 3 has up to two bytes for one.
MOST_BYTES = 400_000_000

BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}


def ten_binary(folder: Path, split: str) -> tuple[Tensor, Pictures]:
    """Read a split of cifar-10-batches-bin."""
    return _together([_binary(folder / f"{name}.bin", TEN, 1) for name in BATCHES[split]])


def ten_pickled(folder: Path, split: str) -> tuple[Tensor, Pictures]:
    """Read a split of cifar-10-batches-py; nothing is unpickled."""
    return _together([_pickled(folder / name, TEN, "labels") for name in BATCHES[split]])


def hundred_binary(folder: Path, split: str) -> tuple[Tensor, Pictures]:
    """Read a split of cifar-100-binary, with fine labels."""
    return _together([_binary(folder / f"{split}.bin", HUNDRED, 2)])


def hundred_pickled(folder: Path, split: str) -> tuple[Tensor, Pictures]:
    """Read a split of cifar-100-python, with fine labels; nothing is unpickled."""
    return _together([_pickled(folder / split, HUNDRED, "fine_labels")])


def _together(batches: list[Batch]) -> tuple[Tensor, Pictures]:
    return torch.cat([labels for labels, _ in batches]), Arrays(*(pixels for _, pixels in batches))


def _binary(path: Path, classes: int, labels: int) -> Batch:
    """Read records of some labels, of which the last one counts, and an image."""
    records = mapped(path, labels + BYTES)
    found = checked_labels(path, records[:, labels - 1], classes)
    return found, records[:, labels:].reshape(-1, *SIDES)


def _pickled(path: Path, classes: int, key: str) -> Batch:
    raw = contents(path, MOST_BYTES)
    try:
        value = pickled.read(raw)
        if not isinstance(value, dict) or not {key, "data"} <= set(value):
            raise ValueError(f"it is no dictionary of data and {key}")
        pixels = pickled.array(value["data"])
        labels = _integers(value[key], key)
    except ValueError as error:
        raise ImagesError(
            f"{located(path)}: no CIFAR batch ({quoted(error, limit=200)}); {AGAIN}"
        ) from error
    require_counts(path, len(pixels), len(labels))
    if pixels.shape[1] != BYTES or not len(pixels):
        raise ImagesError(
            f"{located(path)}: holds {len(pixels)} images of {pixels.shape[1]} bytes, not some of "
            f"{BYTES}; {AGAIN}"
        )
    return checked_labels(path, labels, classes), pixels.reshape(-1, *SIDES)


def _integers(values: Any, key: str) -> NDArray[np.int64]:
    if not isinstance(values, list) or any(type(value) is not int for value in values):
        raise ValueError(f"its {key} are no list of integers")
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError as error:
        raise ValueError(f"its {key} are too large") from error
