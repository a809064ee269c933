"""From scores of clean images to a threshold, and from a count of flagged images to a p-value."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rank(count: int, rate: float) -> int:
    """Return which of ``count`` clean scores, from 1 for the least, is the threshold for ``rate``.

    Raises:
        ValueError: the rate lies outside (0, 1), or the scores are too few for it.
    """
    if not 0 < rate < 1:
        raise ValueError(f"a false-positive rate of {rate}: must lie between 0 and 1")
    place = max(1, math.ceil((count + 1) * (1 - rate) - 1e-9))
    if place > count:
        raise ValueError(
            f"{count} clean images are too few for a false-positive rate of {rate:g}: "
            f"bring {fewest(rate)} or more"
        )
    return place


def fewest(rate: float) -> int:
    """Return the fewest clean scores that a threshold for ``rate``, in (0, 1), can be had from."""
    return max(1, math.ceil(1 / rate - 1e-9) - 1)


def quantile_threshold(scores: Tensor, rate: float) -> float:
    """Return the threshold that a clean image exceeds with a probability of at most ``rate``.

    ``scores`` (N,) are those of clean images that nothing was trained on. Split conformal
    prediction (Papadopoulos et al., ECML 2002): the k-th least score, k = ceil((N + 1)(1 - rate)),
    whatever the distribution.

    Raises:
        ValueError: there are too few scores for the rate.
    """
    return float(scores.sort().values[rank(len(scores), rate) - 1])


def sigma_threshold(scores: Tensor, sigmas: float) -> float:
    """Return DeDe's published threshold, mean + k * standard deviation of clean ``scores`` (N,)."""
    return float(scores.mean() + sigmas * scores.std())


def p_values(scores: Tensor, clean: Tensor) -> Tensor:
    """Return the conformal p-value of each score (N,): how many ``clean`` ones are as high.

    (1 + #{clean >= score}) / (1 + number of clean scores), so never below that last fraction.
    """
    above = len(clean) - torch.searchsorted(clean.sort().values, scores.contiguous())
    return (1 + above) / (1 + len(clean))


def excess_p_value(flagged: int, screened: int, *, calibrated: int, place: int) -> float:
    """Return how likely clean images are flagged at least as often as ``flagged`` of ``screened``.

    The threshold is the ``place``-th least of ``calibrated`` clean scores, so that its true rate is
    not known but Beta distributed: the count is beta-binomial, wider than the binomial, which would
    call an unlucky threshold a finding as soon as there are enough images.
    """
    if flagged <= 0:
        return 1.0
    a, b = calibrated + 1 - place, place
    counts = torch.arange(flagged, screened + 1, dtype=torch.float64)
    rest = screened - counts

    def log_beta(x: Tensor, y: Tensor) -> Tensor:
        return torch.lgamma(x) + torch.lgamma(y) - torch.lgamma(x + y)

    ways = -log_beta(counts + 1, rest + 1) - math.log(screened + 1)
    whole = log_beta(torch.tensor(float(a), dtype=torch.float64), torch.tensor(float(b)).double())
    terms = ways + log_beta(counts + a, rest + b) - whole
    return min(1.0, float(torch.logsumexp(terms, 0).exp()))
