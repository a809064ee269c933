"""Files made byte by byte, so that tests can break one rule of the format at a time."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def entry(dtype: str = "F32", shape: tuple[int, ...] = (1,), begin: int = 0, end: int = 4) -> Any:
    """Return a tensor's entry in a header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a file's bytes: ``header`` is JSON bytes as they are, or a value to encode."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """Write such a file and return its path."""
    path.write_bytes(raw(header, data, length))
    return path


def shapes_only(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str = "F32",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a valid file of zeros with tensors of these shapes; sparse, so it costs no disk."""
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1, "F8_E4M3": 1, "F64": 8}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    reached = 0
    for name, shape in shapes.items():
        size = sizes[dtype]
        for side in shape:
            size *= side
        header[name] = entry(dtype, shape, reached, reached + size)
        reached += size
    write(path, header)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + reached)
    return path
