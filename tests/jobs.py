"""What test_workers has done in processes of their own; imported there, so it must be light."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

Send = Callable[[Any], None]


def work(job: Any, send: Send) -> None:
    """Do what the job says, ``(what, *arguments)``."""
    what, *arguments = job
    send(("pid", os.getpid()))
    DOES[what](send, *arguments)


def count(send: Send, n: int) -> None:
    """Send so many numbers."""
    for number in range(n):
        send(number)


def leave(send: Send, code: int) -> None:
    """End at once."""
    send("last words")
    os._exit(code)


def kill(send: Send) -> None:
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def crash(send: Send) -> None:
    """Raise."""
    print("not this line")
    raise RuntimeError("out of luck")


def say(send: Send, text: str) -> None:
    """Print."""
    print(text, flush=True)


def interrupt(send: Send) -> None:
    """Get what Ctrl-C sends to every process of a terminal."""
    os.kill(os.getpid(), signal.SIGINT)
    send("still here")


def beget(send: Send) -> None:
    """Leave a process behind that has the pipes open."""
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    send("left one")


def chatter(send: Send) -> None:
    """Send for ever."""
    while True:
        send("...")
        time.sleep(0.01)


class Unreadable:
    """A job that cannot be read where it is sent to."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


def refuse(job: Any, send: Send) -> None:
    """Take the place of work that nobody should have to do."""
    raise AssertionError("nothing was to be done")


DOES = {f.__name__: f for f in (count, leave, kill, crash, say, interrupt, beget, chatter)}
