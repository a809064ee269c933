"""The reference bank: what the checks measure on clean encoders of many kinds, and predictions.

The bank ships as numbers: for each clean encoder its traits and the values of the searches, made
by ``python -m benchmarks.bank``. For an encoder under test it predicts, from the encoder's traits,
what a clean one would measure, whatever its architecture; see
:mod:`encodercheck.methods.prediction`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from encodercheck.cache import atomic_write_text
from encodercheck.methods.null import LEAST_ENCODERS, SCALES, Null
from encodercheck.methods.prediction import Floats, Ridge, features, interval, left_out
from encodercheck.methods.tails import Tail
from encodercheck.saved import read_saved
from encodercheck.suspicion import Suspicion

SCHEMA = "encodercheck.bank/1"
SHIPPED = Path(__file__).with_name("bank.json")
# How often a clean encoder may fail in any check of the suite that the bank predicts.
SUITE_ALPHA = 0.005
# A p-value below this is not told from it.
LEAST_CHANCE = 1e-12
NORMAL = NormalDist()
MOST_BYTES = 1_000_000
MOST_PARSING = 100_000_000


@dataclass(frozen=True)
class BankEncoder:
    """One clean encoder: what kind it is of, its traits and its values, as "EC202.gain"."""

    family: str
    method: str
    source: str
    traits: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Bank:
    """Clean encoders; ``traits`` and ``values`` name what each has, ``scales`` those of the values.

    ``penalties`` are the ridge penalties of the values, ``weights`` what part of the error rate
    each may have, where the largest has 1 (weighted Bonferroni; Genovese, Roeder & Wasserman,
    Biometrika 2006): a p-value counts divided by it. ``profile`` is what it was measured with.
    """

    profile: str
    traits: tuple[str, ...]
    values: tuple[str, ...]
    scales: tuple[str, ...]
    penalties: tuple[float, ...]
    weights: tuple[float, ...]
    encoders: tuple[BankEncoder, ...]
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> Bank:
        """Read a file that :meth:`write` wrote.

        Raises:
            ConfigError: the file is missing, too large, damaged, or no bank.
        """
        return read_saved(
            path,
            _bank,
            what="reference bank",
            way_out="reinstall encodercheck",
            most=MOST_BYTES,
            parsing=MOST_PARSING,
        )

    @staticmethod
    def shipped() -> Bank:
        """Return the bank that comes with the package."""
        return _shipped()

    def write(self, path: str | Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            OutputError: the file cannot be written.
        """
        facts = {
            "schema": SCHEMA,
            "profile": self.profile,
            "versions": dict(self.versions),
            "traits": self.traits,
            "values": self.values,
            "scales": self.scales,
            "penalties": self.penalties,
            "weights": self.weights,
        }
        rows = [[e.family, e.method, e.source, e.traits, e.values] for e in self.encoders]
        # An encoder a line: what changes is seen in a diff.
        lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
        head = json.dumps(facts, indent=1, allow_nan=False).removesuffix("\n}")
        atomic_write_text(path, head + ',\n "encoders": [\n' + lines + "\n]}\n")

    def describe(self) -> str:
        """Say what predictions come from."""
        families = len({encoder.family for encoder in self.encoders})
        return f"what {len(self.encoders)} clean encoders of {families} families predict"

    def null(self, key: str, traits: Mapping[str, float]) -> Null:
        """Return what is expected of a clean encoder with these traits as ``key``, "EC202.gain".

        Its values are those that the bank's encoders would have if each were of this kind: what is
        predicted, and the error of the prediction for each when its family is left out. Without
        such a value, or a trait, the null is empty.
        """
        if key not in self.values or not set(self.traits) <= traits.keys():
            return Null((), "gain", f"nothing measured as {key}", own=False)
        column = self.values.index(key)
        scale = SCALES[self.scales[column]]
        centre = self._predict(column, features(traits, self.traits))
        values = tuple(scale.back(centre + error) for error in self.errors(column))
        return Null(
            values,
            self.scales[column],
            self.describe(),
            predicted=self.alpha,
            weight=self.weights[column],
        )

    @property
    def alpha(self) -> float:
        """The p-value below which a value of weight 1 fails: the suite errs with ``SUITE_ALPHA``.

        Values depend on each other: how often the smallest weighted p-value of all is this small is
        counted on the bank's own encoders, by predictions without their families.
        """
        return _alpha(self)

    def deviations(
        self, values: Mapping[str, float], traits: Mapping[str, float]
    ) -> dict[str, float]:
        """Return how unusual each of ``values``, as "EC202.gain", is: its normal score.

        That is 1.6 for a weighted p-value of 0.05 and 3.1 for 0.001. Of values that the bank knows;
        none where a trait is missing.
        """
        if not set(self.traits) <= traits.keys():
            return {}
        query, found = features(traits, self.traits), {}
        for column, key in enumerate(self.values):
            if math.isfinite(values.get(key, math.nan)):
                value = SCALES[self.scales[column]].forward(values[key])
                error = value - self._predict(column, query)
                found[key] = self.score(column, error)
        return found

    def suspicion(
        self, values: Mapping[str, float], traits: Mapping[str, float]
    ) -> Suspicion | None:
        """Return how often a clean encoder is as suspicious in any of ``values``, as "EC202.gain".

        None where the bank knows none of them, or a trait is missing.
        """
        deviations = self.deviations(values, traits)
        if not deviations:
            return None
        columns = [self.values.index(key) for key in deviations]
        clean, worst = _scores(self)[:, columns].max(1), max(deviations.values())
        low, high = interval(clean, worst, seed=0)
        chance = Tail.of(clean.tolist(), heavy=True).beyond(worst)
        return Suspicion(chance, min(low, chance), max(high, chance), len(clean))

    def errors(self, column: int) -> list[float]:
        """Return how far each encoder is from its prediction without its family, on the scale."""
        known: list[float] = _errors(self, column).tolist()
        return known

    @property
    def inputs(self) -> Floats:
        """All encoders' traits as features (N, P)."""
        return _inputs(self)

    def outputs(self, column: int) -> Floats:
        """Return all encoders' values (N,) of one kind, on its scale."""
        forward = SCALES[self.scales[column]].forward
        return np.array([forward(encoder.values[column]) for encoder in self.encoders])

    def score(self, column: int, error: float) -> float:
        """Return the normal score of the weighted p-value of an error of one value."""
        return normal_score(_tails(self)[column].beyond(error) / self.weights[column])

    def _predict(self, column: int, query: Floats) -> float:
        return float(_fits(self)[column](query))

    def __hash__(self) -> int:
        """Tell banks apart by identity: they are large, and never changed."""
        return id(self)


@cache
def _shipped() -> Bank:
    return Bank.read(SHIPPED)


@cache
def _inputs(bank: Bank) -> Floats:
    rows = (dict(zip(bank.traits, e.traits, strict=True)) for e in bank.encoders)
    inputs: Floats = np.array([features(row, bank.traits) for row in rows])
    return inputs


@cache
def _fits(bank: Bank) -> list[Ridge]:
    """Return the predictions of all values."""
    columns = range(len(bank.values))
    return [Ridge.fit(bank.inputs, bank.outputs(c), bank.penalties[c]) for c in columns]


@cache
def _errors(bank: Bank, column: int) -> Floats:
    groups = [encoder.family for encoder in bank.encoders]
    return left_out(bank.inputs, bank.outputs(column), groups, bank.penalties[column])


@cache
def _tails(bank: Bank) -> list[Tail]:
    """Return the tails of the errors of all values, each as heavy as its own."""
    return [
        Tail.of(bank.errors(column), least_deviation=SCALES[scale].least_deviation, heavy=True)
        for column, scale in enumerate(bank.scales)
    ]


@cache
def _scores(bank: Bank) -> Floats:
    """Return the normal scores of every encoder's errors (N, K), its family left out."""
    scores: Floats = np.array(
        [
            [bank.score(column, error) for error in bank.errors(column)]
            for column in range(len(bank.values))
        ]
    ).T
    return scores


@cache
def _alpha(bank: Bank) -> float:
    worst = Tail.of(_scores(bank).max(1).tolist(), heavy=True).quantile(SUITE_ALPHA)
    return NORMAL.cdf(-worst)


def normal_score(probability: float) -> float:
    """Return the value that a standard normal variable exceeds with this probability."""
    return -NORMAL.inv_cdf(min(max(probability, LEAST_CHANCE), 1 - LEAST_CHANCE))


def _bank(content: Any) -> Bank:
    """Check everything that a file says; raise ValueError with the first fault."""
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"its schema is not {SCHEMA}")
    traits, values = _names(content["traits"]), _names(content["values"])
    scales = _names(content["scales"])
    penalties = _numbers(content["penalties"], len(values))
    weights = _numbers(content["weights"], len(values))
    if not all(0 < weight <= 1 for weight in weights):
        raise ValueError("a weight is not between 0 and 1")
    if len(scales) != len(values) or not set(scales) <= SCALES.keys():
        raise ValueError("scales are not those of the values")
    encoders = []
    for family, method, source, own_traits, own_values in content["encoders"]:
        kind, trained, images = _names([family, method, source])
        known, measured = _numbers(own_traits, len(traits)), _numbers(own_values, len(values))
        encoders.append(BankEncoder(kind, trained, images, known, measured))
    if len(encoders) < LEAST_ENCODERS:
        raise ValueError(f"it has {len(encoders)} encoders")
    return Bank(
        profile=_names([content["profile"]])[0],
        traits=traits,
        values=values,
        scales=scales,
        penalties=penalties,
        weights=weights,
        encoders=tuple(encoders),
        versions={str(k): str(v) for k, v in content["versions"].items()},
    )


def _names(texts: Sequence[Any]) -> tuple[str, ...]:
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise ValueError("a name is no printable text")
    return tuple(texts)


def _numbers(numbers: Sequence[Any], count: int) -> tuple[float, ...]:
    if len(numbers) != count:
        raise ValueError(f"{len(numbers)} numbers where {count} belong")
    found = tuple(float(number) for number in numbers)
    if not all(map(math.isfinite, found)):
        raise ValueError("a number is not finite")
    return found
