"""A bar on the terminal for what goes through many models without checking any."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from encodercheck.progress import Progress

# Seconds between two looks at the bar: drawing it must cost nothing.
PAUSE = 0.1


@contextmanager
def steps(what: str) -> Iterator[Progress]:
    """Yield a progress that is drawn on stderr, where that is a terminal, while the block lives."""
    from encodercheck.cli.live import bars
    from encodercheck.cli.output import console

    with console(stderr=True) as screen, bars(screen) as drawn:
        task = drawn.add_task(what, total=None, note="")
        last = 0.0

        def progress(step: int, total: int, note: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= PAUSE:
                last = now
                drawn.update(task, completed=step, total=total)

        yield progress
