"""When a search may end early: a trigger is found, or none will be.

Both ends have an error rate. A trigger counts as found when it has collapsed two batches in a row;
whether it is one is measured afterwards on held-out images, and so a clean encoder pays nothing for
an early end. A search is given up when its best score lies under the curve ``HOPELESS``, below
which no search came that went on to find a trigger of a poisoned encoder: by exchangeability one
more such search does so with a probability of at most 1 / (n + 1), see docs/inversion.md for n.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from torch import Tensor

from encodercheck.progress import Progress, silent

FOUND = 0.97
FOUND_STEPS = 2
# At these steps a search is given up whose best score, the mean of the last five, is lower.
HOPELESS: Mapping[int, float] = {15: 0.45}
SMOOTH = 5


class Stopping:
    """Watches the scores of one search of at most ``steps`` steps.

    ``trace`` keeps the best score of every step; ``ended`` is "found", "hopeless" or "exhausted".
    """

    def __init__(self, steps: int, *, found: float = FOUND, progress: Progress = silent) -> None:
        self.trace: list[float] = []
        self.ended = "exhausted"
        self._steps, self._found, self._progress = steps, found, progress

    def __call__(self, step: int, scores: Tensor) -> bool:
        """Note the scores (R,) of a step; return whether the search is over."""
        self.trace.append(float(scores.max()))
        self._progress(step, self._steps, f"best score {self.trace[-1]:.3f}")
        if len(self.trace) >= FOUND_STEPS and min(self.trace[-FOUND_STEPS:]) >= self._found:
            self.ended = "found"
        elif statistics.fmean(self.trace[-SMOOTH:]) < HOPELESS.get(step, -1.0):
            self.ended = "hopeless"
        return self.ended != "exhausted"
