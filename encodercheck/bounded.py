"""Files of a user's that are read whole, but never more of them than they may be."""

from __future__ import annotations

import stat
from pathlib import Path


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
