"""Workers on this machine: whatever becomes of one, the others go on, and so does the run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from encodercheck.verify import workers
from encodercheck.verify.verifying import cores
from encodercheck.verify.workers import Ended, Send
from encodercheck.zoo.measuring import Job, Work, begin, measure
from encodercheck.zoo.queueing import Queue
from encodercheck.zoo.running import Began, Died, Event, Events

# Sent by the kernel, or by a memory watchdog, to processes that take too much.
KILLED = "was killed by SIGKILL"


def processes(work: Work, queue: Queue, *, at_once: int) -> Events:
    """Scan ``at_once`` models at a time, each in one of as many processes."""
    at_once = max(1, min(at_once, len(queue)))
    work = replace(
        work, threads=max(1, cores() // at_once), share=1 / at_once, place=str(Path.cwd())
    )
    while queue:
        taken: dict[int, Job] = {}
        lasting = workers.events(
            partial(_work, work), _taken(queue, taken), at_once=at_once, lasting=True
        )
        with closing(lasting) as events:
            yield from _told(work, events, taken)


def _told(work: Work, events: workers.Events, taken: dict[int, Job]) -> Iterator[tuple[Job, Event]]:
    """Yield what workers send, and what is to be said of those that have died."""
    began: dict[int, float] = {}
    for number, event in events:
        if isinstance(event, Began):
            began[number] = time.monotonic()
        if not isinstance(event, Ended):
            yield taken[number], event
            continue
        job = taken.pop(number)
        if event.reason:
            seconds = time.monotonic() - began.get(number, time.monotonic())
            yield job, _death(work, event.reason, seconds)


def _death(work: Work, reason: str, seconds: float) -> Died:
    if work.timeout is not None and seconds > work.timeout:
        return Died(f"did not stop after {work.timeout:g} s (--timeout)")
    return Died(reason, starved=reason.startswith(KILLED))


def _taken(queue: Queue, taken: dict[int, Job]) -> Iterator[Job | None]:
    """Yield the jobs in the queue, which others may put back, and note their numbers."""
    number = 0
    while queue:
        job = queue.take()
        if job is not None:
            taken[number] = job
        yield job
        number += 1


_ready: Work | None = None


def _work(work: Work, job: Job, send: Send) -> None:
    """Run in a worker."""
    global _ready
    if _ready is None:
        begin(work)
        _ready = work
    send(Began())
    send(measure(work, job))
