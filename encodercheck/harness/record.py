"""What one check has said so far, while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from encodercheck.errors import EncoderCheckError
from encodercheck.exhibits import Exhibit, Gallery, Picture
from encodercheck.harness.listener import CheckInfo
from encodercheck.report import Direction, Measurement, Outcome


@dataclass
class CheckRecord:
    """Filled by the fixtures ``measure`` and ``artifacts``; read when the check has ended."""

    info: CheckInfo
    measurements: list[Measurement] = field(default_factory=list)
    witness: str | None = None
    sentence: str = ""
    fault: EncoderCheckError | None = None
    """An error that must not be lost, whether or not the check lets it through."""
    exhibits: list[Exhibit] = field(default_factory=list)
    of_witness: list[Exhibit] = field(default_factory=list)
    """Those that show the witness: a later witness takes their place."""
    pictures: list[Picture] = field(default_factory=list)
    """Those that the check shows of its own accord."""

    @property
    def shown(self) -> tuple[Exhibit, ...]:
        """All there is to show."""
        own = [Gallery("Pictures", (tuple(self.pictures),))] if self.pictures else []
        return (*self.exhibits, *own)

    @property
    def shortfall(self) -> str:
        """What fell short of its limit, as ``gain 0.991 > 0.9``; empty where nothing did."""
        return describe_shortfalls(self.measurements)


def describe_shortfalls(measurements: Sequence[Measurement]) -> str:
    """Say in one line which measurements are beyond their limits."""
    return "; ".join(
        _compare(measurement)
        for measurement in measurements
        if measurement.outcome is Outcome.FAILED
    )


def _compare(measurement: Measurement) -> str:
    value, limit = measurement.value, measurement.limit
    assert limit is not None
    # As many digits as it takes to tell the two apart: "0.9 > 0.9" explains nothing.
    digits = next((n for n in range(4, 17) if f"{value:.{n}g}" != f"{limit:.{n}g}"), 17)
    texts = f"{value:.{digits}g}", f"{limit:.{digits}g}"
    at_least = measurement.direction is Direction.AT_LEAST
    if not (value < limit or value > limit):
        return (
            f"{measurement.name} {texts[0]}, not {'at least' if at_least else 'at most'} {texts[1]}"
        )
    return f"{measurement.name} {texts[0]} {'<' if at_least else '>'} {texts[1]}"


RECORD = pytest.StashKey[CheckRecord]()
"""Where a pytest item keeps its record while it runs."""
