"""Tails: how likely one more value is, normal or with as heavy a tail as the values have."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encodercheck.methods.tails import Tail, student_t


@pytest.mark.parametrize(
    ("probability", "freedom", "score"),
    [
        (0.95, 1, 6.3138),
        (0.999, 2, 22.327),
        (0.975, 3, 3.1824),
        (0.995, 4, 4.6041),
        (0.99, 5, 3.3649),
        (0.95, 10, 1.8125),
        (0.975, 29, 2.0452),
        (0.975, 30, 2.0423),
        (0.5, 7, 0.0),
    ],
)
def test_student_t_agrees_with_the_tables(probability, freedom, score):
    assert student_t(score, freedom) == pytest.approx(probability, abs=2e-5)
    assert student_t(-score, freedom) == pytest.approx(1 - probability, abs=2e-5)


@given(st.integers(0, 2**31), st.floats(0.001, 0.4), st.booleans())
def test_a_quantile_is_exceeded_with_its_probability(seed, probability, heavy):
    values = np.random.default_rng(seed).standard_t(4, 50).tolist()
    tail = Tail.of(values, heavy=heavy)
    assert tail.beyond(tail.quantile(probability)) == pytest.approx(probability, rel=1e-3)


@given(st.integers(0, 2**31), st.floats(-5, 5), st.floats(0.1, 10))
def test_unit_and_offset_of_values_do_not_matter(seed, offset, factor):
    values = np.random.default_rng(seed).standard_normal(30)
    before = Tail.of(values.tolist(), heavy=True).beyond(2.0)
    after = Tail.of((offset + factor * values).tolist(), heavy=True).beyond(offset + factor * 2.0)
    assert after == pytest.approx(before, rel=1e-6)


def test_one_value_unlike_all_others_makes_the_tail_heavy():
    """Far out it is more likely than a normal tail says, and near the middle about as likely."""
    values = [*np.random.default_rng(0).standard_normal(100), 8.0]
    normal, heavy = Tail.of(values), Tail.of(values, heavy=True)
    assert heavy.freedom < normal.freedom
    assert heavy.beyond(8.0) > 100 * normal.beyond(8.0)
    assert heavy.beyond(0.5) == pytest.approx(normal.beyond(0.5), rel=0.3)


def test_values_without_heavy_tails_get_none():
    values = np.random.default_rng(0).uniform(size=60).tolist()
    assert Tail.of(values, heavy=True) == Tail.of(values)


def test_values_that_are_all_one_differ_by_the_least_deviation():
    tail = Tail.of([2.0, 2.0, 2.0], least_deviation=0.5, heavy=True)
    assert tail.beyond(2.0) == 0.5
    assert 0 < tail.beyond(3.0) < 0.2
