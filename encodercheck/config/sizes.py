"""Amounts of memory as people write them."""

from __future__ import annotations

import re

SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?)(i?)b?", re.IGNORECASE | re.ASCII)
UNITS = "kmgt"


def parse_size(text: str) -> int:
    """Return a number of bytes: "2GB" is 2 * 10**9, "2GiB" 2 * 2**30, "2000" itself.

    Raises:
        ValueError: ``text`` is no size, or none at all.
    """
    found = SIZE.fullmatch(text.strip())
    if found is None or (found[3] and not found[2]):
        raise ValueError("not a size; write 2GB, 512MiB or bytes")
    power = UNITS.find(found[2].lower()) + 1 if found[2] else 0
    count = int(float(found[1]) * (1024 if found[3] else 1000) ** power)
    if count < 1:
        raise ValueError("nothing fits into that; name a larger size")
    return count
