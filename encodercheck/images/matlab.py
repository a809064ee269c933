"""Arrays of integers in files of MATLAB 5, with or without compression.

scipy reads these files too, but damaged ones end the process (scipy 1.17: a segmentation fault).
The format: 128 bytes of header, then elements of a type, a length and data; a variable is an
element of four: flags with its class, sides, name, and the numbers, column by column.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encodercheck.errors import ImagesError
from encodercheck.images.binary import AGAIN, mapped
from encodercheck.weights.header import located, quoted

HEADER = 128
# Version 1.0, and the bytes of a number from the least to the most significant.
MARK = b"\x00\x01IM"
INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
INTEGERS = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4"}
# What is stored as integers may be double: MATLAB takes the smallest type that does.
NUMERIC_CLASSES = range(6, 14)
COMPLEX = 0x800
# SVHN's largest part is 1.6 GB.
MOST_BYTES = 2**31
TRUNCATED = "it is truncated"


def arrays(path: Path, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """Return the arrays of integers with these names; of namesakes the first.

    Raises:
        ImagesError: the file cannot be read, is damaged, lacks one of them, or holds something else
            under its name: an object, a function, text.
    """
    content = mapped(path).data
    found: dict[str, NDArray[Any]] = {}
    try:
        if content[HEADER - 4 : HEADER] != MARK:
            raise ValueError("it says to be something else")
        rest = content[HEADER:]
        while len(found) < len(names):
            if not rest:
                raise ValueError(f"it lacks {' and '.join(sorted(set(names) - set(found)))}")
            kind, data, rest = _element(rest, padded=False)
            if kind == COMPRESSED:
                kind, data = _inflated(data)
            if kind == MATRIX:
                _read(data, names, found)
    except (ValueError, struct.error, zlib.error) as error:
        raise ImagesError(
            f"{located(path)}: no MATLAB 5 file with {' and '.join(names)} that can be read "
            f"({quoted(error)}); {AGAIN}"
        ) from error
    return found


def _element(data: memoryview, *, padded: bool = True) -> tuple[int, memoryview, memoryview]:
    """Return type and data of the first element, and what follows it."""
    if len(data) < 8:
        raise ValueError(TRUNCATED)
    kind, length = struct.unpack_from("<II", data)
    start = 8
    if kind >> 16:
        # Up to four bytes of data lie where the length would.
        kind, length, start = kind & 0xFFFF, kind >> 16, 4
        if length > 4:
            raise ValueError("an element is longer than it can be")
    if len(data) < start + length:
        raise ValueError(TRUNCATED)
    end = start + length
    return kind, data[start:end], data[end + (-end % 8 if padded else 0) :]


def _inflated(data: memoryview) -> tuple[int, memoryview]:
    """Return type and data of the one element that was compressed."""
    stream = zlib.decompressobj()
    head = stream.decompress(data, 8)
    if len(head) < 8:
        raise ValueError(TRUNCATED)
    kind, length = struct.unpack("<II", head)
    if length > MOST_BYTES:
        raise ValueError("a variable is too large")
    # 0 would be no limit.
    inflated = stream.decompress(stream.unconsumed_tail, max(1, length))
    if len(inflated) < length:
        raise ValueError(TRUNCATED)
    return kind, memoryview(inflated)


def _read(data: memoryview, names: Collection[str], found: dict[str, NDArray[Any]]) -> None:
    """Add a variable to ``found`` where it has one of the names and is not there yet."""
    flags_kind, flags, data = _element(data)
    sides_kind, sides, data = _element(data)
    name_kind, raw_name, data = _element(data)
    if (flags_kind, sides_kind, name_kind) != (UINT32, INT32, INT8):
        raise ValueError("a variable is no array")
    name = bytes(raw_name).decode("latin-1")
    if name not in names or name in found:
        return
    (flag,) = struct.unpack_from("<I", flags)
    kind, numbers, _ = _element(data)
    if flag & 0xFF not in NUMERIC_CLASSES or flag & COMPLEX or kind not in INTEGERS:
        raise ValueError(f"{name} is no array of integers")
    values = np.frombuffer(numbers, INTEGERS[kind])
    shape = struct.unpack(f"<{len(sides) // 4}i", sides)
    if len(shape) < 2 or min(shape) < 0 or math.prod(shape) != len(values):
        raise ValueError(f"{name} has {len(values)} numbers, not those of its sides")
    found[name] = values.reshape(shape, order="F")
