"""Rates, areas and their intervals, against their definitions."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encodercheck.intervals import area, auroc, auroc_interval, share, surprise, wilson

SCORES = st.lists(st.floats(allow_nan=False), min_size=1, max_size=12)


@given(st.integers(0, 200), st.integers(0, 200))
def test_wilson_is_where_the_rate_is(hits, misses):
    n = hits + misses
    low, high = wilson(hits, n)
    assert 0 <= low < high <= 1
    if n:
        assert low - 1e-9 <= hits / n <= high + 1e-9
        # Solves (rate - p)^2 = z^2 p (1 - p) / n, its definition.
        for p in (low, high):
            if 1e-9 < p < 1 - 1e-9:
                assert (hits / n - p) ** 2 == pytest.approx(1.96**2 * p * (1 - p) / n, rel=1e-6)


@given(st.integers(1, 100), st.integers(1, 100))
def test_more_of_the_same_is_a_narrower_interval(hits, misses):
    narrow, wide = wilson(2 * hits, 2 * (hits + misses)), wilson(hits, hits + misses)
    assert narrow[1] - narrow[0] < wide[1] - wide[0]


@given(SCORES, SCORES)
def test_auroc_counts_the_pairs(positive, negative):
    wins = sum((p > n) + (p == n) / 2 for p in positive for n in negative)
    assert auroc(positive, negative) == pytest.approx(wins / (len(positive) * len(negative)))
    assert auroc(positive, negative) + auroc(negative, positive) == pytest.approx(1)


@settings(max_examples=8)
@given(SCORES, SCORES)
def test_its_interval_is_one_and_repeats_itself(positive, negative):
    low, high = auroc_interval(positive, negative)
    assert 0 <= low <= high <= 1
    assert (low, high) == auroc_interval(positive, negative)


def test_what_separates_always_separates():
    assert area([2, 3, math.inf], [1, -math.inf]) == "1.000 (1.000 to 1.000)"
    assert area([1, 1], [1]) == "0.500 (0.500 to 0.500)"
    assert area([], [1]) == "-"
    assert math.isnan(auroc([1], []))


def test_shares_and_surprise_read_as_they_should():
    assert share(7, 8) == "7 of 8 (0.53 to 0.98)"
    assert surprise(None) == 0 == surprise(1.0)
    assert surprise(0.0) == pytest.approx(-math.log(1e-12))
