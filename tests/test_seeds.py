"""Seeds: a number, or one that nobody can know beforehand."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encodercheck.config.seeds import LARGEST_SEED, RANDOM, check_seed, draw_seed


@given(st.integers(0, LARGEST_SEED))
def test_a_number_is_its_own_seed(seed):
    assert draw_seed(seed) == check_seed(seed) == seed


def test_random_seeds_differ_and_are_seeds():
    drawn = {draw_seed(RANDOM) for _ in range(20)}
    assert len(drawn) == 20
    assert all(check_seed(int(seed)) == seed for seed in drawn)
    assert json.loads(json.dumps([draw_seed(RANDOM)]))[0] <= LARGEST_SEED


@pytest.mark.parametrize("value", [-1, 2**31, True, 1.0, "7", "Random", None])
def test_everything_else_is_refused(value):
    with pytest.raises(ValueError, match="or random"):
        check_seed(value)
