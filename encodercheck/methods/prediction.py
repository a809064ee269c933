"""What a clean encoder of these traits would measure: ridge regression, and how far it errs.

Reference encoders that are like the one under test in nothing but their traits still say what to
expect of it, if what is expected is regressed on the traits. How far such a prediction errs for a
kind of encoder that no reference is of is seen by leaving out one kind after another: the residuals
of left-out groups are what a prediction interval is made of (as jackknife+ and CV+ by group; Barber
et al., *Predictive inference with the jackknife+*, Annals of Statistics 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from encodercheck.methods.tails import Tail

Floats = np.ndarray[Any, np.dtype[np.float64]]

# Gains count by what they leave: 0.99 is to 0.9 as 0.9 to 0.
LEAST_LEFT = 1e-4
LOGARITHMS = ("centred_rank", "embedding_dim", "image_size", "noise_response", "length_variation")


SHARES = ("batch_norm", "layer_norm", "group_norm", "gated", "smooth")


def feature(name: str, value: float) -> float:
    """Return a trait as a number whose differences count."""
    if name in LOGARITHMS:
        return math.log(max(value, 1e-9))
    if name in SHARES:
        return value
    return -math.log(max(1 - value, LEAST_LEFT))


def features(traits: Mapping[str, float], names: Sequence[str]) -> Floats:
    """Return the named traits as features (P,).

    Raises:
        KeyError: a trait is missing.
    """
    return np.array([feature(name, traits[name]) for name in names])


@dataclass(frozen=True)
class Ridge:
    """A ridge regression on standardised features: ``weights`` (P,) and what they belong to."""

    mean: Floats
    deviation: Floats
    weights: Floats
    constant: float

    @classmethod
    def fit(cls, inputs: Floats, outputs: Floats, penalty: float) -> Ridge:
        """Fit outputs (N,) to inputs (N, P); the penalty is per observation (Hoerl & Kennard)."""
        mean, deviation = inputs.mean(0), inputs.std(0) + 1e-9
        scaled = (inputs - mean) / deviation
        count, width = scaled.shape
        gram = scaled.T @ scaled + penalty * count * np.eye(width)
        weights = np.linalg.solve(gram, scaled.T @ (outputs - outputs.mean()))
        return cls(mean, deviation, weights, float(outputs.mean()))

    def __call__(self, inputs: Floats) -> Floats:
        """Return predictions (...,) for inputs (..., P), which count up to three deviations off."""
        # Beyond what was seen a straight line says nothing.
        scaled = ((inputs - self.mean) / self.deviation).clip(-3, 3)
        predicted: Floats = scaled @ self.weights + self.constant
        return predicted


def left_out(inputs: Floats, outputs: Floats, groups: Sequence[str], penalty: float) -> Floats:
    """Return residuals (N,), each by a fit without any observation of its own group."""
    labels = np.array(groups)
    residuals = np.zeros(len(outputs))
    for group in sorted(set(groups)):
        own = labels == group
        fitted = Ridge.fit(inputs[~own], outputs[~own], penalty)
        residuals[own] = outputs[own] - fitted(inputs[own])
    return residuals


def best_penalty(
    inputs: Floats, outputs: Floats, groups: Sequence[str], penalties: Sequence[float]
) -> float:
    """Return the penalty with the smallest mean square residual of left-out groups."""

    def error(penalty: float) -> float:
        return float(np.square(left_out(inputs, outputs, groups, penalty)).mean())

    return min(penalties, key=error)


def interval(values: Floats, value: float, *, seed: int, draws: int = 400) -> tuple[float, float]:
    """Return a 95 % interval of how likely one more of values (N,) is at least ``value``.

    By drawing the values again.
    """
    random = np.random.default_rng(seed)
    drawn = (random.choice(values, len(values)).tolist() for _ in range(draws))
    chances = [Tail.of(again, heavy=True).beyond(value) for again in drawn]
    low, high = np.quantile(chances, [0.025, 0.975])
    return float(low), float(high)
