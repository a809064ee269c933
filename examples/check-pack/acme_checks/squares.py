"""What checks of the pack share: any module that is not called `check_*.py`."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from encodercheck.methods.battery import patch
from encodercheck.trigger import Trigger


def corner_squares(size: int, side: int) -> Iterator[Trigger]:
    """Yield a white square in every corner of an image of ``size`` x ``size`` pixels."""
    far = size - side
    for top in (0, far):
        for left in (0, far):
            yield patch(size, top, left, torch.ones(3, side, side), f"white {side}x{side} square")
