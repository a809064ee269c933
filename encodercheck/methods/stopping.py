"""When a search may end early: it has found a trigger, or it has stopped rising.

A search is there to tell on which side of a limit the best trigger lies. It is found when a restart
lies so far beyond the limit on three batches in a row that held-out images will hardly disagree;
they are asked anyway, so that a clean encoder pays nothing for an early end. It is given up by its
own trajectory alone: when the best restart, if it went on to rise twice as fast as over its last
ten steps, would not come near collapse by the last one. No limit takes part in that, since a
limit that is too wide for an encoder would end a search that was about to find a trigger;
docs/bank.md counts what giving up loses. Without a limit a search goes to its end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from encodercheck.progress import Progress, silent

# A found trigger leaves at most this multiple of what the limit leaves of the spread.
FOUND = 0.5
FOUND_STEPS = 3
SMOOTH = 4
# From this step on a search may be given up, by how fast it rose in the last PATIENCE steps.
FIRST_LOOK = 15
PATIENCE = 10
FASTER = 2.0
# One that is as near to collapse as this, or would get there, goes on.
PROMISING = 0.9


class Stopping:
    """Watches the scores of one search of at most ``steps`` steps, for a gain above ``limit``.

    ``trace`` keeps the best score of every step; ``ended`` is "found", "hopeless" or "exhausted".
    With ``patient`` the search is never given up.
    """

    def __init__(
        self,
        steps: int,
        *,
        limit: float | None = None,
        patient: bool = False,
        progress: Progress = silent,
    ) -> None:
        self.trace: list[float] = []
        self.ended = "exhausted"
        self.steps, self._progress = steps, progress
        self._patient = patient or limit is None
        self._recent: list[Tensor] = []
        self._smoothed: list[float] = []
        self._found = math.inf if limit is None else 1 - FOUND * (1 - limit)

    @property
    def lately(self) -> Tensor:
        """The mean of every restart's scores (R,) over its last batches."""
        return torch.stack(self._recent).mean(0)

    def __call__(self, step: int, scores: Tensor) -> bool:
        """Note the scores (R,) of a step; return whether the search is over."""
        self.trace.append(float(scores.max()))
        self._progress(step, self.steps, f"best score {self.trace[-1]:.3f}")
        self._recent = [*self._recent, scores][-SMOOTH:]
        steadily = torch.stack(self._recent[-FOUND_STEPS:]).amin(0).max()
        self._smoothed.append(float(self.lately.max()))
        if len(self._recent) >= FOUND_STEPS and float(steadily) >= self._found:
            self.ended = "found"
        elif not self._patient and step >= FIRST_LOOK and self._falls_short(step):
            self.ended = "hopeless"
        return self.ended != "exhausted"

    def _falls_short(self, step: int) -> bool:
        before, now = self._smoothed[-1 - PATIENCE], self._smoothed[-1]
        rise = max(0.0, now - before) / PATIENCE
        return now + (self.steps - step) * FASTER * rise < PROMISING
