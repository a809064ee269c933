"""Run a command in a process of its own; the one that the user started has the last word.

Checks of a user's own, conftest files, check packs and ``--arch package.module:callable`` are code
that runs in a scan. What ends its process, ``os._exit(0)`` or a crash, must not be taken for a
verdict: the exit code counts only where the command has said in the end which it is. It is no
protection from code that means to lie, which can do whatever the user can.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec

import typer

from encodercheck.cli import ending

if TYPE_CHECKING:
    from encodercheck.cli.formats import Outputs

P = ParamSpec("P")
# Set for a process that another one waits for, where processes cannot be forked.
CHANNEL = "ENCODERCHECK_SUPERVISED_BY"
FORKS = sys.platform == "linux" and hasattr(os, "memfd_create")
HANDLED = (signal.SIGINT, signal.SIGTERM)
# A process of Linux dies with the one that has forked it: prctl(PR_SET_PDEATHSIG, SIGKILL).
PR_SET_PDEATHSIG = 1

_told: Callable[[dict[str, Any]], None] | None = None


def supervised(command: Callable[P, None]) -> Callable[P, None]:
    """Return a command that runs in a process of its own, and ends with its verdict only."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        run = functools.partial(command, *args, **kwargs)
        if CHANNEL in os.environ:
            _work(run, os.open(os.environ.pop(CHANNEL), os.O_WRONLY | os.O_APPEND))
        raise typer.Exit(_by_fork(run) if FORKS else _by_restart())

    return wrapped


def tell_outputs(outputs: Outputs, models: Sequence[str]) -> None:
    """Say which reports are owed, on which models, should the process end before they are written.

    The reports of an earlier run may lie in their place.
    """
    if _told is not None:
        _told({"outputs": {n: str(path) for n, path in outputs.paths.items()}, "models": models})


def _by_fork(run: Callable[[], None]) -> int:
    """Run the command in a fork. Nothing is loaded yet, so that it takes no time or memory."""
    sys.stdout.flush()
    sys.stderr.flush()
    channel = os.memfd_create("encodercheck")
    # Held back until there is somebody to pass them on to.
    waited = {*HANDLED, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    parent, child = os.getpid(), os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _die_with(parent)
        _work(run, channel)
    try:
        status = _wait(child, waited)
        with os.fdopen(channel, "rb") as file:
            file.seek(0)
            return _verdict(file.read(), os.waitstatus_to_exitcode(status))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(child: int, waited: set[signal.Signals]) -> int:
    """Wait for the child, and pass on what it has to be told; return its status."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        told = signal.sigtimedwait(waited, 1)
        # Ctrl-C on a terminal reaches the child by itself.
        if told is not None and told.si_signo in HANDLED and told.si_code <= 0:
            with suppress(ProcessLookupError):
                os.kill(child, told.si_signo)


def _by_restart() -> int:
    """Run the same command line once more, and wait for it."""
    with tempfile.TemporaryDirectory() as folder:
        channel = Path(folder) / "channel"
        channel.touch()
        command = [sys.executable, *sys.orig_argv[1:]]
        process = subprocess.Popen(command, env={**os.environ, CHANNEL: str(channel)})
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            while True:
                # Ctrl-C reaches both; the other one says so.
                with suppress(KeyboardInterrupt):
                    status = process.wait()
                    break
        finally:
            signal.signal(signal.SIGTERM, before)
        return _verdict(channel.read_bytes(), status)


def _work(run: Callable[[], None], channel: int) -> NoReturn:
    """Run the command in this process, tell its exit code, and end."""
    global _told

    def tell(values: dict[str, Any]) -> None:
        os.write(channel, json.dumps(values).encode() + b"\n")

    _told = tell
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, ending.terminate)
    code = ending.code_of(run)
    tell({"code": code})
    with suppress(BaseException):
        atexit._run_exitfuncs()
    # Not to the end of Python, where a check may have left something that waits, or ends otherwise.
    os._exit(code)


def _die_with(parent: int) -> None:
    with suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(ending.NO_VERDICT)


def _verdict(told: bytes, status: int) -> int:
    """Return the exit code that the command told; without one there is no verdict."""
    said: dict[str, Any] = {}
    for line in told.splitlines():
        with suppress(ValueError, TypeError):
            said |= json.loads(line)
    code = said.get("code")
    if isinstance(code, int) and (code or not status):
        return code
    reason = f"{_ended(status)} before its verdict"
    ending.say(
        f"the scan {reason}; a check, or other code that runs in it, may have ended it, or memory "
        "ran out; no verdict"
    )
    _write(said, reason)
    return ending.NO_VERDICT


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with exit code {status}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"


def _write(said: dict[str, Any], reason: str) -> None:
    """Write the reports that are owed: each says that there is no verdict."""
    from encodercheck.cli.formats import Outputs
    from encodercheck.report import Report

    outputs = Outputs(**{name: Path(path) for name, path in said.get("outputs", {}).items()})
    reports = [
        Report.unreadable(model, f"{model}: the scan {reason}") for model in said.get("models", [])
    ]
    ending.code_of(functools.partial(outputs.write, reports))
