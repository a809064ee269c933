"""Thresholds from clean scores, and how likely clean images are flagged as often."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encodercheck.methods import thresholds

RATES = st.floats(0.005, 0.9)
FEW_SCORES = st.lists(st.integers(-50, 50), min_size=20, max_size=120)


def tensor(values):
    return torch.tensor(values, dtype=torch.float32)


# Thresholds


@given(FEW_SCORES, RATES)
def test_at_most_the_rate_of_exchangeable_scores_exceeds_the_threshold_of_the_others(values, rate):
    """Which of them is the new one is chance: over all choices the exceedance is exact."""
    count = len(values) - 1
    if count < thresholds.fewest(rate):
        return
    flagged = sum(
        value > thresholds.quantile_threshold(tensor(values[:i] + values[i + 1 :]), rate)
        for i, value in enumerate(values)
    )
    assert flagged <= len(values) * rate + 1e-6


@given(st.integers(10, 120), RATES, st.randoms(use_true_random=False))
def test_scores_without_ties_exceed_the_threshold_as_often_as_they_may(count, rate, random):
    """No more than one in N + 1 fewer than the rate: the threshold gives nothing away."""
    if count < thresholds.fewest(rate):
        return
    values = list(range(count + 1))
    random.shuffle(values)
    flagged = sum(
        value > thresholds.quantile_threshold(tensor(values[:i] + values[i + 1 :]), rate)
        for i, value in enumerate(values)
    )
    assert (count + 1) * rate - 1 < flagged <= (count + 1) * rate + 1e-6


@given(FEW_SCORES, st.floats(0.06, 0.9), st.floats(0.06, 0.9))
def test_a_lower_rate_has_no_lower_threshold(values, one, other):
    low, high = sorted((one, other))
    scores = tensor(values)
    assert thresholds.quantile_threshold(scores, low) >= thresholds.quantile_threshold(scores, high)


@given(FEW_SCORES, st.randoms(use_true_random=False))
def test_the_order_of_the_scores_does_not_matter(values, random):
    mixed = list(values)
    random.shuffle(mixed)
    assert thresholds.quantile_threshold(tensor(values), 0.1) == thresholds.quantile_threshold(
        tensor(mixed), 0.1
    )


@given(st.floats(0.0005, 0.99))
def test_too_few_scores_are_an_error_that_says_how_many_it_takes(rate):
    fewest = thresholds.fewest(rate)
    assert 1 <= thresholds.rank(fewest, rate) <= fewest
    if fewest == 1:
        return
    with pytest.raises(ValueError, match=f"{fewest - 1} clean images .* bring {fewest} or more"):
        thresholds.rank(fewest - 1, rate)


@pytest.mark.parametrize(
    ("count", "rate", "place"),
    [(99, 0.01, 99), (100, 0.05, 96), (800, 0.03, 777), (33, 0.03, 33), (1, 0.999999999, 1)],
)
def test_thresholds_by_hand(count, rate, place):
    assert thresholds.rank(count, rate) == place
    assert thresholds.quantile_threshold(torch.arange(1.0, count + 1), rate) == place


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_rate_must_lie_between_nothing_and_everything(rate):
    with pytest.raises(ValueError, match="between 0 and 1"):
        thresholds.rank(1000, rate)


def test_the_published_threshold_by_hand():
    scores = tensor([1, 2, 3, 6])
    assert thresholds.sigma_threshold(scores, 0) == 3
    assert thresholds.sigma_threshold(scores, 2) == pytest.approx(3 + 2 * math.sqrt(14 / 3))


# P-values


@given(FEW_SCORES, FEW_SCORES)
def test_p_values_count_the_clean_scores_that_are_as_high(values, clean):
    found = thresholds.p_values(tensor(values), tensor(clean)).tolist()
    for value, chance in zip(values, found, strict=True):
        as_high = sum(other >= value for other in clean)
        assert chance == pytest.approx((1 + as_high) / (1 + len(clean)))
        assert 0 < chance <= 1


@given(FEW_SCORES, FEW_SCORES)
def test_a_higher_score_has_no_higher_p_value(values, clean):
    found = thresholds.p_values(tensor(sorted(values)), tensor(clean))
    assert bool((found.diff() <= 0).all())


def test_an_infinite_score_has_the_least_p_value():
    found = thresholds.p_values(tensor([float("inf"), -float("inf")]), torch.arange(9.0))
    assert found.tolist() == pytest.approx([0.1, 1.0])


@given(FEW_SCORES, st.floats(0.06, 0.9))
def test_what_is_flagged_has_a_p_value_of_at_most_the_rate(clean, rate):
    threshold = thresholds.quantile_threshold(tensor(clean), rate)
    values = torch.arange(-60.0, 60.0)
    chances = thresholds.p_values(values, tensor(clean))
    assert bool((chances[values > threshold] <= rate + 1e-6).all())


# More flagged images than clean ones explain


def exact(flagged, screened, calibrated, place):
    """The tail of the beta-binomial, summed in whole numbers.

    Of the orders that all scores can come in, those with ``flagged`` or more screened ones above
    the ``place``-th clean one.
    """
    above = calibrated - place
    ways = sum(
        math.comb(above + k, k) * math.comb(place - 1 + screened - k, screened - k)
        for k in range(flagged, screened + 1)
    )
    return float(Fraction(ways, math.comb(calibrated + screened, screened)))


@st.composite
def countings(draw):
    calibrated = draw(st.integers(1, 80))
    screened = draw(st.integers(1, 80))
    return (
        draw(st.integers(0, screened)),
        screened,
        calibrated,
        draw(st.integers(1, calibrated)),
    )


def excess(flagged, screened, calibrated, place):
    return thresholds.excess_p_value(flagged, screened, calibrated=calibrated, place=place)


@given(countings())
def test_the_excess_is_the_sum_over_all_orders_of_scores(counting):
    assert excess(*counting) == pytest.approx(exact(*counting), rel=1e-8, abs=1e-12)


@given(countings())
def test_more_flagged_images_are_never_likelier(counting):
    flagged, screened, calibrated, place = counting
    here = excess(flagged, screened, calibrated, place)
    assert 0 < here <= 1
    if flagged < screened:
        assert excess(flagged + 1, screened, calibrated, place) <= here + 1e-12
    if flagged == 0:
        assert here == 1.0


@given(countings())
def test_a_higher_threshold_makes_as_many_flagged_images_less_likely(counting):
    flagged, screened, calibrated, place = counting
    if place < calibrated:
        assert excess(flagged, screened, calibrated, place + 1) <= excess(*counting) + 1e-12


def test_the_excess_is_what_a_simulation_finds():
    calibrated, screened, rate, draws = 60, 200, 0.1, 20_000
    place = thresholds.rank(calibrated, rate)
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(draws, calibrated, generator=generator).sort(1).values[:, place - 1]
    above = torch.rand(draws, screened, generator=generator) > clean.unsqueeze(1)
    counts = above.sum(1)
    for flagged in (5, 15, 25, 40):
        seen = float((counts >= flagged).float().mean())
        assert excess(flagged, screened, calibrated, place) == pytest.approx(seen, abs=0.015)


def test_an_unlucky_threshold_is_no_finding_however_many_images_there_are():
    """A true rate of 4 % for 3 % is nothing unusual with 800 clean images; 10 % is."""
    place = thresholds.rank(800, 0.03)
    assert excess(4_000, 100_000, 800, place) > 0.05
    assert excess(10_000, 100_000, 800, place) < 1e-10


def test_the_excess_of_100_000_images_is_as_that_of_infinitely_many():
    """Then the rate is known: what is left is the Beta distribution of the true rate."""
    place, screened = thresholds.rank(800, 0.03), 100_000
    beta = torch.distributions.Beta(torch.tensor(801.0 - place), torch.tensor(float(place)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rates = beta.sample((200_000,))
    for flagged in (2_000, 3_000, 4_000):
        expected = float((rates > flagged / screened).float().mean())
        assert excess(flagged, screened, 800, place) == pytest.approx(expected, abs=0.01)
    assert excess(1, screened, 800, place) == pytest.approx(1, abs=1e-6)
    assert 0 <= excess(screened, screened, 800, place) < 1e-30
