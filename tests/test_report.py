"""Outcomes and exit codes."""

import math
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encodercheck.report import Direction, Measurement, Outcome, exit_code, overall

P, F, U, E = Outcome.PASSED, Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.ERROR


@pytest.mark.parametrize(
    ("outcomes", "code", "strict_code"),
    [
        ([], 2, 2),
        ([P], 0, 0),
        ([F], 1, 1),
        ([U], 2, 2),
        ([E], 2, 2),
        ([P, U], 0, 2),
        ([P, E], 2, 2),
        ([P, F], 1, 1),
        ([F, E], 1, 1),
        ([U, E], 2, 2),
        ([P, F, U, E], 1, 1),
    ],
)
def test_exit_codes(outcomes, code, strict_code):
    for order in permutations(outcomes):
        assert exit_code(list(order)) == code
        assert exit_code(list(order), strict=True) == strict_code


@given(st.lists(st.sampled_from(Outcome)))
def test_zero_is_only_ever_a_pass(outcomes):
    if exit_code(outcomes) == 0:
        assert P in outcomes
        assert not {F, E} & set(outcomes)
        assert overall(outcomes) is P


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_a_value_is_within_exactly_its_side(value, limit):
    least = Measurement("x", value, limit, Direction.AT_LEAST)
    most = Measurement("x", value, limit, Direction.AT_MOST)
    assert (least.outcome is P) == (value >= limit)
    assert (most.outcome is P) == (value <= limit)


@pytest.mark.parametrize("direction", Direction)
def test_nan_never_passes(direction):
    assert Measurement("x", math.nan, 1.0, direction).outcome is F
    assert Measurement("x", math.nan, 1.0, direction).to_dict()["value"] == "nan"
