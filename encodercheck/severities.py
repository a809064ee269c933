"""How grave what a check finds is."""

from __future__ import annotations

SEVERITIES = ("info", "low", "medium", "high", "critical")
"""From the least grave to the gravest."""


def as_grave_as(severity: str, floor: str | None) -> bool:
    """Tell whether ``severity`` is ``floor`` or graver; everything is as grave as None.

    What is no known severity is as grave as any: it must not be overlooked.
    """
    if floor is None or severity not in SEVERITIES:
        return True
    return SEVERITIES.index(severity) >= SEVERITIES.index(floor)
