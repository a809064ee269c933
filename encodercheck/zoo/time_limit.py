"""A limit on how long a model may take, kept from within the process that scans it."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

# What computes in C hears no signal before it returns.
GRACE = 10.0


class TimeLimit:
    """Whether time has run out."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.over = False

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Stop the scan as Ctrl-C would: no check can catch that."""
        self.over = True
        raise KeyboardInterrupt


@contextmanager
def limited(seconds: float | None) -> Iterator[TimeLimit]:
    """Interrupt the block after ``seconds``, and end the process where that does not help.

    The interrupt is a KeyboardInterrupt, which is a timeout where the limit is ``over``. It takes
    the main thread and Unix; elsewhere the process ends.
    """
    limit = TimeLimit(seconds)
    if seconds is None:
        yield limit
        return
    gentle = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(
            seconds + (GRACE if gentle else 0), exit=True, file=nowhere
        )
        before = signal.signal(signal.SIGALRM, limit.interrupt) if gentle else None
        try:
            if gentle:
                signal.setitimer(signal.ITIMER_REAL, seconds)
            yield limit
        finally:
            if gentle:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
            faulthandler.cancel_dump_traceback_later()
