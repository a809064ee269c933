"""Judge every row by what is known of the others, as a scan would.

Predictions, deviations and the limit are made without any encoder of the row's group: its family,
its pre-training, or its image source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.bank.fitting import left_out_banks, value
from encodercheck.bank import normal_score
from encodercheck.methods.null import PREDICTED_DOUBT

Row = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """A row with its largest deviation, the value it is of, and the limit of its group.

    A deviation is the normal score of a p-value, see :meth:`Bank.deviations`.
    """

    row: Row
    score: float
    worst: str
    limit: float

    @property
    def failed(self) -> bool:
        """Whether a scan fails."""
        return self.score > self.limit

    @property
    def doubtful(self) -> bool:
        """Whether a scan passes with a check that could not decide."""
        return not self.failed and self.score > normal_score(PREDICTED_DOUBT)


def judge(rows: Sequence[Row], group: str) -> list[Judged]:
    """Return all rows judged without their own group, which is "family", "method" or "source"."""
    judged = []
    for others, own in left_out_banks(rows, group):
        limit = normal_score(others.alpha)
        for row in own:
            values = {key: value(row, key) for key in others.values}
            scores = others.deviations(values, row["traits"])
            worst = max(scores, key=lambda key: scores[key])
            judged.append(Judged(row, scores[worst], worst, limit))
    return judged
