"""How a command ends: an exit code, and one line for whatever went wrong.

Whatever goes wrong, 0 is only ever a verdict, and 1 only ever "a check failed".
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

import typer

from encodercheck import room
from encodercheck.errors import EncoderCheckError

NO_VERDICT = 2
INTERRUPTED = 130
TERMINATED = 143
# What writing to a stream fails with: a full disk, a reader that has gone, a stream that is closed.
UNWRITABLE = (errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF, errno.EDQUOT, errno.EFBIG)
STREAMS = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


class _State:
    """What has happened to this process."""

    terminated = False


def terminate(*_: object) -> None:
    """Handle SIGTERM: end as by Ctrl-C, with what is known, but with another exit code."""
    _State.terminated = True
    raise KeyboardInterrupt


def open_closed_streams() -> bool:
    """Open standard streams that are closed on the null device; tell whether stdout was.

    The next file that is opened would take the place of a closed stream, and get what goes there.
    """
    closed = []
    for fd, name, mode in STREAMS:
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            closed.append(fd)
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115
    return 1 in closed


def say(text: str) -> None:
    """Write a line to stderr, where that is possible."""
    with suppress(OSError, ValueError):
        print(f"encodercheck: {text}", file=sys.stderr, flush=True)


def code_of(command: Callable[[], object]) -> int:
    """Run a command and return its exit code; what it raised is said in one line.

    Its output is flushed, so that what cannot be written is found out before the code is settled.
    """
    try:
        code = _run(command)
        sys.stdout.flush()
    except OSError as error:
        code = _unwritable(error)
    try:
        sys.stderr.flush()
    except OSError:
        _drop(2)
    return code


def _run(command: Callable[[], object]) -> int:
    try:
        command()
    except (SystemExit, typer.Exit) as end:
        if isinstance(end.__context__, BrokenPipeError):
            # Libraries take it for their own exit code 1, which is "a check failed" here.
            raise end.__context__ from None
        code = end.code if isinstance(end, SystemExit) else end.exit_code
        if code is None or isinstance(code, int):
            return code or 0
        say(str(code))
        return NO_VERDICT
    except KeyboardInterrupt:
        say(f"{'terminated' if _State.terminated else 'interrupted'}, no verdict")
        return TERMINATED if _State.terminated else INTERRUPTED
    except EncoderCheckError as error:
        from encodercheck.render.console import printable

        say(printable(str(error)))
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            # The framework's own words for bad usage.
            raise
        if isinstance(error, OSError) and error.filename is None and error.errno in UNWRITABLE:
            raise
        if room.ran_out(error):
            say(f"memory ran out; no verdict; {room.WAY_OUT}")
        else:
            with suppress(OSError):
                traceback.print_exc()
            say("this is a bug in encodercheck; no verdict")
    else:
        return 0
    return NO_VERDICT


def _unwritable(error: OSError) -> int:
    """Say that the output cannot be written; a reader that has gone wants to hear no more."""
    _drop(1)
    if error.errno != errno.EPIPE:
        reason = (error.strerror or str(error)).lower()
        say(f"the output cannot be written ({reason}); no verdict; send it to another place")
    return NO_VERDICT


def _drop(fd: int) -> None:
    """Send what is left of a stream to nowhere: Python would fail on it once more at its end."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, fd)
        os.close(nowhere)
