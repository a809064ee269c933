"""How a long computation reports its progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as ``progress(step, total, note)`` with 0 <= step <= total.

    ``note`` is a few words on the state of things, such as ``"best 0.998"``.
    """

    def __call__(self, step: int, total: int, note: str = "") -> None:
        """Report that ``step`` of ``total`` steps are done."""


def silent(step: int, total: int, note: str = "") -> None:
    """Report nothing."""
