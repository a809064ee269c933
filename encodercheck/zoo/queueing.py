"""The models that a run has yet to scan, and when it may."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from encodercheck.zoo.measuring import Job

# How long to wait, in seconds, before models that another run has are asked for again.
PAUSE = 0.5


class Queue:
    """Jobs, taken from the left; what cannot be had now is for later.

    ``claim`` returns a job as it is to be done, or None while somebody else is doing it.
    ``waiting`` is told, once, of how many jobs that is true when there are no others left.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        claim: Callable[[Job], Job | None] = lambda job: job,
        waiting: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._jobs = deque(jobs)
        self._claim, self._waiting = claim, waiting
        self._told = False

    def __len__(self) -> int:
        return len(self._jobs)

    def take(self) -> Job | None:
        """Take a job from the queue; None where there is none that can be had now."""
        for _ in range(len(self._jobs)):
            job = self._jobs.popleft()
            claimed = self._claim(job)
            if claimed is not None:
                return claimed
            self._jobs.append(job)
        if self._jobs and not self._told:
            self._told = True
            self._waiting(len(self._jobs))
        return None

    def put(self, job: Job) -> None:
        """Put a job back, to be done once more."""
        self._jobs.append(job)
