"""Seeds of scans: a number, or one that cannot be known beforehand."""

from __future__ import annotations

import secrets

LARGEST_SEED = 2**31 - 1
RANDOM = "random"
TAKES = f"0 to {LARGEST_SEED}, or {RANDOM}"


def check_seed(value: object) -> int | str:
    """Return a seed, or ``random``, as it is.

    Raises:
        ValueError: it is neither.
    """
    if value == RANDOM:
        return RANDOM
    if type(value) is not int or not 0 <= value <= LARGEST_SEED:
        raise ValueError(f"is not {TAKES}")
    return value


class DrawnSeed(int):
    """A seed that was drawn: ``value`` is what was asked for."""

    value = RANDOM


def draw_seed(value: object) -> int:
    """Return a seed; for ``random`` a new one, from the operating system.

    A gate whose seed is known lets a model be prepared for the images and the starts of the
    searches that follow from it.

    Raises:
        ValueError: the value is no seed.
    """
    seed = check_seed(value)
    return DrawnSeed(secrets.randbelow(LARGEST_SEED + 1)) if isinstance(seed, str) else seed
