"""When a search may end early: its verdict is clear, one way or the other.

A search is there to tell on which side of a limit the best trigger lies. It is found when a restart
lies so far beyond the limit on three batches in a row that held-out images will hardly disagree;
they are asked anyway, so that a clean encoder pays nothing for an early end. It is hopeless when at
one of a few looks every restart, over its last batches, is still well on the near side, at the
first look far on it: such a search may have been about to find a trigger after all, and
docs/inversion.md counts how often it was. Who sets limits searches without one, to the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from encodercheck.progress import Progress, silent

# A found trigger leaves at most this multiple of what the limit leaves of the spread.
FOUND = 0.5
FOUND_STEPS = 3
# The steps at which to look, with the multiple that a hopeless search leaves at least.
LOOKS: Mapping[int, float] = MappingProxyType({5: 2.0, 8: 1.25, 16: 1.25, 24: 1.25, 32: 1.25})
SMOOTH = 4


class Stopping:
    """Watches the scores of one search of at most ``steps`` steps, for a gain above ``limit``.

    ``trace`` keeps the best score of every step; ``ended`` is "found", "hopeless" or "exhausted".
    """

    def __init__(
        self,
        steps: int,
        *,
        limit: float | None = None,
        looks: Mapping[int, float] = LOOKS,
        progress: Progress = silent,
    ) -> None:
        self.trace: list[float] = []
        self.ended = "exhausted"
        self._steps, self._progress = steps, progress
        self._looks = looks
        self._recent: list[Tensor] = []
        self._left = math.inf if limit is None else 1 - limit
        self._found = math.inf if limit is None else 1 - FOUND * (1 - limit)

    @property
    def lately(self) -> Tensor:
        """The mean of every restart's scores (R,) over its last batches."""
        return torch.stack(self._recent).mean(0)

    def __call__(self, step: int, scores: Tensor) -> bool:
        """Note the scores (R,) of a step; return whether the search is over."""
        self.trace.append(float(scores.max()))
        self._progress(step, self._steps, f"best score {self.trace[-1]:.3f}")
        self._recent = [*self._recent, scores][-SMOOTH:]
        steadily = torch.stack(self._recent[-FOUND_STEPS:]).amin(0).max()
        lately = self.lately.max()
        if len(self._recent) >= FOUND_STEPS and float(steadily) >= self._found:
            self.ended = "found"
        elif 1 - float(lately) > self._looks.get(step, math.inf) * self._left:
            self.ended = "hopeless"
        return self.ended != "exhausted"
