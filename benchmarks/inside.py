"""How long encoders' forward and backward passes take, of all that a program does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from encodercheck.encoder import Encoder


@contextmanager
def inside() -> Iterator[list[float]]:
    """Count the seconds spent in forward passes of any encoder and in backward passes.

    On a CUDA device each pass is waited for, without which its time would be counted elsewhere.
    """
    spent = [0.0]
    forward, backward = Encoder._forward, torch.autograd.grad

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            wait()
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                wait()
                spent[0] += time.perf_counter() - started

        return call

    Encoder._forward = timed(forward)  # type: ignore[method-assign]
    torch.autograd.grad = timed(backward)
    try:
        yield spent
    finally:
        Encoder._forward = forward  # type: ignore[method-assign]
        torch.autograd.grad = backward


def wait() -> None:
    """Wait for what a CUDA device has been asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
