"""Random numbers and other ambient state of a check, kept from leaking in or out."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def isolated(seed: int, name: str) -> Iterator[None]:
    """Seed every global generator from ``seed`` and ``name``; put all back as found at the end.

    What is drawn in the block depends on nothing that ran before it. Torch's gradient mode,
    default dtype and thread count are put back too.
    """
    # Here, so that pytest runs which only collect do not pay for torch.
    import numpy as np
    import torch

    number = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "big")
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    gradients, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    threads = torch.get_num_threads()
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
