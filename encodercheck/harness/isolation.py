"""Random numbers and other ambient state of a check, kept from leaking in or out."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

from encodercheck.harness.ambience import restored_ambience


@contextmanager
def isolated(seed: int, name: str) -> Iterator[None]:
    """Seed every global generator from ``seed`` and ``name``; put all back as found at the end.

    What is drawn in the block depends on nothing that ran before it. Other settings of the process
    are put back too: see :mod:`~encodercheck.harness.ambience`.
    """
    # Here, so that pytest runs which only collect do not pay for torch.
    import numpy as np
    import torch

    number = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "big")
    with restored_ambience():
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)
        yield
