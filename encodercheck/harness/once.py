"""What several checks share is computed once."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

from encodercheck.progress import Progress

T = TypeVar("T")


class Once(Generic[T]):
    """Computes something when it is first asked for, and says the same ever after."""

    def __init__(self, compute: Callable[[Progress], T]) -> None:
        self._compute = compute
        self._results: list[T] = []
        self._failure: tuple[Exception, TracebackType | None] | None = None

    @property
    def known(self) -> T | None:
        """The result, None before the first call."""
        return self._results[0] if self._results else None

    def __call__(self, progress: Progress) -> T:
        """Return the result, or raise the exception, that the first call met."""
        if self._failure is not None:
            error, trace = self._failure
            raise error.with_traceback(trace)
        if not self._results:
            try:
                self._results.append(self._compute(progress))
            except Exception as error:
                # The frames hold a copy of the encoder, and the error outlives them.
                traceback.clear_frames(error.__traceback__)
                self._failure = error, error.__traceback__
                raise
        return self._results[0]
