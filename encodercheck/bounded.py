"""Files of a user's that are read whole, but never more of them than they may be."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from encodercheck.weights.header import check_structure, strict_json


def read_bytes(path: Path, most: int) -> bytes:
    """Return what is in a file of at most ``most`` bytes.

    Raises:
        ValueError: it is larger, or no regular file.
        OSError: it cannot be read.
    """
    # Opening a pipe or a device could wait for ever.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise ValueError(f"more than {most // 10**6} MB")
    return raw


def read_json(path: Path, most: int, *, parsing: int) -> Any:
    """Return what a JSON file says, of at most ``most`` bytes that take ``parsing`` to parse.

    Raises:
        ValueError: it is larger, no regular file, or not such JSON as everybody reads alike.
        OSError: it cannot be read.
    """
    raw = read_bytes(path, most)
    check_structure(raw, parsing)
    return strict_json(raw.decode("utf-8"))
