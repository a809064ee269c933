"""The null: what a check measures on clean encoders, and how unusual a value is against it.

One limit for all encoders is either blind on some architectures or jumpy on others: three percent
of the image take clean small ResNets three quarters of the way to collapse, clean small ViTs a
third. A null holds the values of clean encoders. A value is judged by the prediction interval of
one more clean encoder on the scale of the statistic, see :mod:`encodercheck.methods.tails`: normal
among encoders of one architecture, with as heavy a tail as its errors have where it is predicted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from encodercheck.errors import CheckInconclusive
from encodercheck.methods.tails import Tail

# Fewer clean encoders than this say nothing about a tail.
LEAST_ENCODERS = 3
# The suite judges an encoder by five nulls: so rare a false alarm in each keeps the sum to one in a
# hundred scans, and triggers still lie far beyond.
OWN_ALPHA = 0.002
# Encoders of other architectures may lie elsewhere altogether, which no p-value of theirs counts:
# only what is far beyond all of them fails.
BORROWED_ALPHA = 0.001
# Between the two lies what is unusual among other architectures and may be usual in its own: no
# failure, and no pass either.
DOUBT = 0.02
# The same where a value is held against a prediction: docs/bank.md counts the clean encoders that
# have a check without a verdict by this, about one in twenty.
PREDICTED_DOUBT = 0.01
# What is unusual among an architecture's own encoders fails only if it would be unusual in a clean
# encoder of these traits as well: own encoders that were all trained alike vary too little.
AGREEMENT = 0.05
WAY_OUT = "measure some with `encodercheck calibrate CLEAN... --out FILE`, then pass --null FILE"

# exp overflows a little above this.
MOST_EXPONENT = 700.0


@dataclass(frozen=True)
class Scale:
    """How values become roughly normal, the larger the more suspicious, and how they come back.

    ``harmless`` is a limit that every number keeps, ``extreme`` the most suspicious value there is.
    However alike the encoders of a null are, the next one may differ by ``least_deviation`` on the
    scale's axis. Unless values carry over, encoders of other architectures make no check fail.
    """

    forward: Callable[[float], float]
    back: Callable[[float], float]
    harmless: float
    extreme: float
    least_deviation: float
    carries: bool = True


# A gain is judged by the part of the spread that the trigger leaves: 0.99 is to 0.9 as 0.9 to 0.
GAIN = Scale(
    forward=lambda gain: -math.log(max(1 - gain, 1e-4)),
    back=lambda value: 1 - math.exp(min(-value, MOST_EXPONENT)),
    harmless=math.inf,
    extreme=1.0,
    least_deviation=0.15,
)
# A trigger's size: the smaller, the more suspicious.
SIZE = Scale(
    forward=lambda size: -math.log(max(size, 1e-6)),
    back=lambda value: math.exp(min(-value, MOST_EXPONENT)),
    harmless=-math.inf,
    extreme=0.0,
    least_deviation=0.15,
)
# What is the logarithm of a ratio already: as it is. It depends on how far embeddings can be driven
# out of their range: untrained networks shift as far as backdoored ones of other architectures.
SHIFT = Scale(
    forward=lambda shift: shift,
    back=lambda value: value,
    harmless=math.inf,
    extreme=math.inf,
    least_deviation=0.05,
    carries=False,
)
SCALES: Mapping[str, Scale] = {"gain": GAIN, "size": SIZE, "shift": SHIFT}


@dataclass(frozen=True)
class Null:
    """The values of a statistic on clean encoders.

    ``source`` says which encoders; ``own`` whether they have the architecture of the encoder under
    test. ``scale`` is "gain" (values up to 1, high ones suspicious), "size" (positive values, low
    ones suspicious) or "shift" (any values, high ones suspicious).
    ``required`` is False while clean encoders are measured: then a null that is
    not supported lets every value pass, so that a check goes on to what it measures. ``fixed`` is a
    limit that the user has set instead. ``predicted`` is given where the values are what
    encoders of any architecture predict for one of these traits: the p-value below which one fails,
    times ``weight``, its share of the suite's error rate; see :mod:`encodercheck.bank`.
    ``prediction`` is such a null beside one of own encoders: then a value fails that is unusual by
    both, or unusual enough by the prediction alone.
    """

    values: tuple[float, ...]
    scale: str
    source: str
    own: bool = True
    required: bool = True
    fixed: float | None = None
    predicted: float | None = None
    weight: float = 1.0
    prediction: Null | None = None

    @property
    def supported(self) -> bool:
        """Whether there are enough encoders to judge by."""
        return len(self.values) >= LEAST_ENCODERS

    @property
    def alpha(self) -> float:
        """The p-value below which a value fails."""
        if self.predicted is not None:
            return self.predicted * self.weight
        return OWN_ALPHA if self.own else BORROWED_ALPHA

    @property
    def decides(self) -> float | None:
        """The limit for a search that may end once it is decided; None where it is to go on.

        While clean encoders are measured, a search is to show how far they can be taken.
        """
        known = self.supported or self.fixed is not None
        return self.limit if self.required and known else None

    @property
    def limit(self) -> float:
        """The last value that does not fail; NaN, which no value keeps, without support."""
        if self.fixed is not None:
            return self.fixed
        if (not self.supported and not self.required) or self.only_doubts:
            return SCALES[self.scale].harmless
        own = self.quantile(self.alpha)
        if self.prediction is None or not self.prediction.supported:
            return own
        agreed = self.prediction.quantile(AGREEMENT)
        # The larger the more suspicious, on the axis of every scale.
        axis = SCALES[self.scale].forward
        both = max(own, agreed, key=axis)
        return min(both, self.prediction.limit, key=axis)

    @property
    def only_doubts(self) -> bool:
        """Whether no value fails, because other architectures' values do not carry over."""
        others = self.supported and not self.own
        return others and self.fixed is None and not SCALES[self.scale].carries

    @property
    def judges(self) -> bool:
        """Whether a value is held against these encoders at all, and not for information alone."""
        return self.own or self.fixed is not None or SCALES[self.scale].carries

    @property
    def decisive(self) -> bool:
        """Whether a value can fail: clean encoders may reach the most suspicious value there is."""
        if self.fixed is not None or not self.required:
            return True
        return self.supported and self.p_value(SCALES[self.scale].extreme) < self.alpha

    def require_support(self) -> None:
        """Demand enough clean encoders to judge by, and that they leave room for a verdict.

        Raises:
            CheckInconclusive: there are too few, or no value would be unusual against them.
        """
        if self.fixed is not None:
            return
        if self.required and not self.supported:
            raise CheckInconclusive(
                f"no clean encoders to compare with ({self.source}): bring at least "
                f"{LEAST_ENCODERS} of this architecture; {WAY_OUT}"
            )
        if not self.decisive:
            raise CheckInconclusive(f"no value would be unusual against {self.source}; {WAY_OUT}")

    def require_verdict(self, value: float) -> None:
        """Demand that ``value`` is clearly usual, where the null is one to be doubted.

        That is one of other architectures, a predicted one, and any of a statistic that varies so
        much from encoder to encoder that it does not carry. What is below :attr:`alpha` has failed
        already, NaN too: neither is this method's to say, unless nothing fails.

        Raises:
            CheckInconclusive: the p-value lies between :attr:`alpha` and ``DOUBT``, or, of a
                prediction, ``PREDICTED_DOUBT``.
        """
        if self.fixed is not None:
            return
        chance = self.p_value(value)
        predicted = self.predicted is not None
        doubtful = self.alpha <= chance < (PREDICTED_DOUBT * self.weight if predicted else DOUBT)
        if self.only_doubts:
            doubtful = not chance >= DOUBT
        wary = predicted or not self.own or not SCALES[self.scale].carries
        if self.required and wary and doubtful:
            against = f"against {self.source}, though not enough to fail"
            if not self.own:
                against = f"but only against {self.source}, and this architecture may differ"
            raise CheckInconclusive(
                f"{value:.4g} is unusual (p {chance:.2g}), {against}; {WAY_OUT}"
            )

    def p_value(self, value: float) -> float:
        """Return the probability that one more clean encoder is at least as suspicious.

        NaN in, NaN out; 1 where the null is not supported.
        """
        if math.isnan(value):
            return math.nan
        return self.tail.beyond(SCALES[self.scale].forward(value)) if self.supported else 1.0

    def quantile(self, alpha: float) -> float:
        """Return the value whose p-value is ``alpha``; NaN where the null is not supported."""
        if not self.supported:
            return math.nan
        return SCALES[self.scale].back(self.tail.quantile(alpha))

    @property
    def tail(self) -> Tail:
        """The prediction of one more encoder's value, on the scale's axis."""
        scale = SCALES[self.scale]
        seen = [scale.forward(value) for value in self.values]
        heavy = self.predicted is not None
        return Tail.of(seen, least_deviation=scale.least_deviation, heavy=heavy)
