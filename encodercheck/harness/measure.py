"""The fixture ``measure``: values against limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import SupportsFloat

from encodercheck.errors import ConfigError
from encodercheck.harness.record import CheckRecord
from encodercheck.report import Direction, Measurement, Outcome


class Measure:
    """Records what a check measures.

    >>> measure("gain", 0.4, at_most=0.9)
    True

    The check goes on after a value beyond its limit and fails at its end with all of them, so that
    a report always shows everything that was measured.
    """

    def __init__(self, record: CheckRecord, limits: Mapping[str, float]) -> None:
        self._record = record
        self._limits = limits

    def __call__(
        self,
        name: str,
        value: SupportsFloat,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> bool:
        """Record ``value``, a number or a tensor of one element; return whether it is within.

        Without a limit the value is information only. NaN is within no limit.

        Raises:
            TypeError: ``value`` is no single number.
        """
        number = _number(name, value)
        written = {Direction.AT_LEAST: at_least, Direction.AT_MOST: at_most}
        limits = {side: limit for side, limit in written.items() if limit is not None}
        measured = [
            Measurement(name, number, self._limit(name, side, limit, len(limits)), side)
            for side, limit in limits.items()
        ] or [Measurement(name, number)]
        self._record.measurements += measured
        return all(measurement.outcome is Outcome.PASSED for measurement in measured)

    def say(self, sentence: str) -> None:
        """Set the message of the finding, where the values alone do not tell what there is to know.

        A witness has a sentence of its own, which takes its place.
        """
        self._record.sentence = sentence

    def _limit(self, name: str, side: Direction, written: float, sides: int) -> float:
        """Return the configured limit where there is one, else the one written in the check."""
        whole = self._record.info.id
        for check in dict.fromkeys((whole, whole.partition("[")[0])):
            key = f"{check}.{name}"
            if f"{key}.{side}" in self._limits:
                return float(self._limits[f"{key}.{side}"])
            if key in self._limits:
                if sides > 1:
                    raise ConfigError(
                        f"limit {key}: it has two sides; set {key}.at_least or {key}.at_most"
                    )
                return float(self._limits[key])
        return float(written)


def _number(name: str, value: SupportsFloat) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError("text")
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        shape = getattr(value, "shape", None)
        given = type(value).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")
        raise TypeError(f"measure({name!r}, ...) takes one number, not a {given}") from error
