"""Files of bytes without a header, as data sets come in."""

from __future__ import annotations

import math
import mmap
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encodercheck.errors import ImagesError
from encodercheck.weights.header import located, os_reason

AGAIN = "unpack the archive again"
# Of a larger file (STL-10's unlabelled images) a few are wanted here and there: a system that
# reads ahead would read most of it for them.
LARGE = 500_000_000


def mapped(path: Path, *sides: int) -> NDArray[np.uint8]:
    """Return a file's bytes as an array (N, *sides), read from the disk where it is looked at.

    Raises:
        ImagesError: the file cannot be read, is empty, or ends within a row.
    """
    length, size = math.prod(sides), size_of(path)
    if size == 0 or size % length:
        raise ImagesError(
            f"{located(path)}: its {size} bytes are no whole number of {length}-byte records, so "
            f"it is truncated or another file; {AGAIN}"
        )
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise _unreadable(path, error) from error
    # Windows takes no advice.
    if size > LARGE and hasattr(content, "madvise"):
        content.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(content, np.uint8).reshape(-1, *sides)


def contents(path: Path, most: int) -> bytes:
    """Return a whole file.

    Raises:
        ImagesError: the file cannot be read, or holds more than ``most`` bytes.
    """
    size = size_of(path)
    if size > most:
        raise ImagesError(
            f"{located(path)}: holds {size} bytes, and such a file holds {most} at most; {AGAIN}"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def size_of(path: Path) -> int:
    """Return how many bytes a file holds.

    Raises:
        ImagesError: it is missing, or no regular file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    # Opening a pipe or a device could wait for ever.
    if not stat.S_ISREG(status.st_mode):
        raise ImagesError(f"{located(path)}: not a regular file; {AGAIN}")
    return status.st_size


def _unreadable(path: Path, error: OSError) -> ImagesError:
    return ImagesError(f"{located(path)}: cannot be read ({os_reason(error)}); {AGAIN}")
