"""Jobs in processes of their own: what kills one of them costs that one job."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

Send = Callable[[Any], None]
Work = Callable[[Any, Send], None]
Events = Generator[tuple[int, Any], None, None]
LONGEST_REASON = 300
# A process that a job has left behind keeps its pipes open, and with them the news of its end.
LONGEST_WAIT = 1.0


@dataclass(frozen=True)
class Ended:
    """The last event of a job; ``reason`` says why it did not go through, where it did not."""

    reason: str = ""


@dataclass(frozen=True)
class _Done:
    """A worker has done its job; a lasting one waits for another."""


def events(work: Work, jobs: Iterable[Any], *, at_once: int, lasting: bool = False) -> Events:
    """Call ``work(job, send)`` for each job in a new process; yield what they send.

    Events come with the number of their job, and the last one of each is :class:`Ended`. ``work``,
    jobs and events must be picklable. A job is taken from ``jobs`` when there is a process for it;
    None says that there is none yet, and more is asked for within a second. ``lasting`` processes
    do one job after the other, which saves the time that they take to start.
    Close the iterator to end processes that still run.
    """
    with tempfile.TemporaryDirectory() as logs:
        waiting = enumerate(jobs)
        running: dict[int, _Worker] = {}
        idle: list[_Worker] = []
        try:
            while True:
                later = False
                while len(running) < at_once and (entry := next(waiting, None)) is not None:
                    number, job = entry
                    if later := job is None:
                        break
                    running[number] = _given(idle, job) or _Worker(
                        work, job, Path(logs) / str(number), lasting
                    )
                if not (running or later):
                    return
                handles = [handle for worker in running.values() for handle in worker.handles]
                wait(handles, timeout=LONGEST_WAIT)
                for number, worker in list(running.items()):
                    # Asked first: what it sent before it ended can be read afterwards.
                    ended = not worker.process.is_alive()
                    for event in worker.heard():
                        if not isinstance(event, _Done):
                            yield number, event
                            continue
                        if not lasting:
                            worker.done = True
                            continue
                        idle.append(running.pop(number))
                        yield number, Ended()
                    if ended and number in running:
                        del running[number]
                        yield number, Ended(worker.reason())
        finally:
            for worker in (*running.values(), *idle):
                worker.stop()


def _given(idle: list[_Worker], job: Any) -> _Worker | None:
    """Return the idle worker that has taken the job; None where there is none."""
    while idle:
        worker = idle.pop()
        if worker.give(job):
            return worker
        worker.stop()
    return None


class _Worker:
    """A process, and the pipe that it sends events through, and gets further jobs."""

    def __init__(self, work: Work, job: Any, log: Path, lasting: bool) -> None:
        # A fork of a process that has used threads may hang.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        log.touch()
        self._log, self._open = log, True
        self.done = False
        self.process: SpawnProcess = context.Process(
            target=_main, args=(work, job, theirs, log, lasting)
        )
        self.process.start()
        theirs.close()

    def give(self, job: Any) -> bool:
        """Have the process do another job; tell whether it is there to do it."""
        # Asked before: a process that has got the job, and died of it, has done it.
        if not self.process.is_alive():
            return False
        try:
            self._connection.send(job)
        except OSError:
            return False
        return True

    @property
    def handles(self) -> list[Connection | int]:
        """What to wait for: an event, or the end."""
        return [self.process.sentinel, *([self._connection] if self._open else [])]

    def heard(self) -> Iterator[Any]:
        """Yield what has been sent since."""
        try:
            while self._open and self._connection.poll():
                yield self._connection.recv()
        except (EOFError, OSError):
            self._open = False

    def reason(self) -> str:
        """Say why the process ended, if not because it had finished."""
        self.process.join()
        code = self.process.exitcode or 0
        # Code that runs in it may have ended it with any exit code.
        if self.done and not code:
            return ""
        text = f"ended with exit code {code}" if code >= 0 else f"was killed by {_signal(-code)}"
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"{text}: {lines[-1][:LONGEST_REASON]}" if lines else text

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.process.terminate()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _main(work: Work, job: Any, connection: Connection, log: Path, lasting: bool) -> None:
    """Run in the new process."""
    # Ctrl-C reaches every process of a terminal; the parent ends its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    code = 1
    try:
        work(job, partial(_send, connection))
        _send(connection, _Done())
        while lasting:
            try:
                job = connection.recv()
            except EOFError:
                break
            # What an earlier job has printed is no reason why a later one ends.
            os.lseek(2, 0, os.SEEK_SET)
            os.ftruncate(2, 0)
            work(job, partial(_send, connection))
            _send(connection, _Done())
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    # At once: threads that the work has left behind would hold up an orderly end.
    os._exit(code)


def _send(connection: Connection, event: Any) -> None:
    try:
        connection.send(event)
    except BrokenPipeError:
        # The parent process has ended.
        os._exit(1)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
