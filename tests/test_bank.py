"""The reference bank: what is read, what it predicts, and how often it errs."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encodercheck.bank import (
    MOST_BYTES,
    SHIPPED,
    SUITE_ALPHA,
    Bank,
    BankEncoder,
    normal_score,
)
from encodercheck.errors import ConfigError
from encodercheck.methods import prediction
from encodercheck.suspicion import Suspicion

FAMILIES = ("a", "b", "c", "d")
TRAITS = ("centred_rank", "small_mean")


def made_up(count=40, noise=0.05, seed=0):
    """Return a bank whose gains follow from a trait, but for some noise."""
    random = np.random.default_rng(seed)
    encoders = []
    for number in range(count):
        rank, small = random.uniform(2, 60), random.uniform(0, 0.6)
        left = math.exp(-(0.5 + 2 * prediction.feature("small_mean", small)))
        gains = [1 - left * math.exp(noise * random.standard_normal()) for _ in range(2)]
        encoders.append(
            BankEncoder(FAMILIES[number % 4], "SimCLR", "clouds", (rank, small), tuple(gains))
        )
    return Bank(
        profile="standard",
        traits=TRAITS,
        values=("EC202.gain", "EC204.gain"),
        scales=("gain", "gain"),
        penalties=(0.01, 0.01),
        weights=(1.0, 1.0),
        encoders=tuple(encoders),
    )


BANK = made_up()


@pytest.mark.parametrize("small", [0.05, 0.3, 0.55])
def test_a_clean_encoder_is_predicted_from_its_traits(small):
    """The same gain is usual for one encoder and suspicious in another."""
    traits = {"centred_rank": 20.0, "small_mean": small, "more": 1.0}
    usual = 1 - math.exp(-(0.5 + 2 * prediction.feature("small_mean", small)))
    null = BANK.null("EC202.gain", traits)
    assert null.supported
    assert len(null.values) == len(BANK.encoders)
    assert null.p_value(usual) > 0.1
    assert usual < null.limit
    assert null.p_value(1 - 0.2 * (1 - usual)) < 1e-6


def test_nothing_is_predicted_of_what_was_not_measured():
    traits = {"centred_rank": 20.0, "small_mean": 0.1}
    assert not BANK.null("EC999.gain", traits).supported
    assert not BANK.null("EC202.gain", {"centred_rank": 20.0}).supported
    assert BANK.suspicion({"EC999.gain": 0.5}, traits) is None
    assert BANK.suspicion({"EC202.gain": math.nan}, traits) is None
    assert BANK.suspicion({"EC202.gain": 0.9}, {}) is None


def test_a_scan_is_as_suspicious_as_its_worst_check():
    traits = {"centred_rank": 20.0, "small_mean": 0.3}
    usual = 1 - math.exp(-(0.5 + 2 * prediction.feature("small_mean", 0.3)))
    clean = BANK.suspicion({"EC202.gain": usual, "EC204.gain": usual}, traits)
    one = BANK.suspicion({"EC202.gain": usual, "EC204.gain": 0.999}, traits)
    assert clean.probability > 0.1
    assert one.probability < 1e-4
    assert one.low <= one.probability <= one.high
    assert one.encoders == len(BANK.encoders)


def test_limits_keep_the_rate_of_the_whole_suite():
    """New encoders like those of the bank fail in any check about as seldom as they should."""
    failed = 0
    fresh = made_up(count=1500, seed=1)
    for encoder in fresh.encoders:
        traits = dict(zip(TRAITS, encoder.traits, strict=True))
        gains = zip(fresh.values, encoder.values, strict=True)
        failed += any(gain > BANK.null(key, traits).limit for key, gain in gains)
    assert failed / 1500 < 4 * SUITE_ALPHA


def test_a_value_of_less_weight_takes_more_to_fail():
    """And the rest takes less: together they err as often."""
    light = replace(BANK, weights=(1.0, 0.01))
    traits = {"centred_rank": 20.0, "small_mean": 0.3}
    first, second = (light.null(key, traits) for key in light.values)
    assert second.alpha == pytest.approx(0.01 * first.alpha)
    assert second.limit > BANK.null("EC204.gain", traits).limit
    assert first.limit < BANK.null("EC202.gain", traits).limit
    value = {"EC204.gain": second.limit}
    assert light.deviations(value, traits)["EC204.gain"] == pytest.approx(
        normal_score(light.alpha), abs=1e-3
    )


def test_a_bank_is_written_and_read(tmp_path):
    BANK.write(tmp_path / "bank.json")
    again = Bank.read(tmp_path / "bank.json")
    assert again == replace(BANK, versions={})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.pop("traits"),
        lambda content: content.update(schema="encodercheck.bank/2"),
        lambda content: content["encoders"][0][4].append(0.5),
        lambda content: content["encoders"][0][3].__setitem__(0, "many"),
        lambda content: content["scales"].__setitem__(0, "length"),
        lambda content: content["weights"].__setitem__(0, 0.0),
        lambda content: content.update(encoders=content["encoders"][:2]),
    ],
)
def test_a_damaged_bank_is_refused_in_one_line(spoil, tmp_path):
    BANK.write(tmp_path / "bank.json")
    content = json.loads((tmp_path / "bank.json").read_text())
    spoil(content)
    (tmp_path / "bank.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="reinstall encodercheck") as error:
        Bank.read(tmp_path / "bank.json")
    assert "\n" not in str(error.value)


def test_the_shipped_bank_is_small_and_of_many_kinds():
    bank = Bank.shipped()
    assert SHIPPED.stat().st_size < MOST_BYTES
    assert len({encoder.family for encoder in bank.encoders}) >= 12
    assert len({encoder.method for encoder in bank.encoders}) >= 8
    assert len({encoder.source for encoder in bank.encoders}) >= 5
    assert 0 < bank.alpha < 0.02


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_suspicion_says_one_time_in_how_many(probability, low, high):
    told = Suspicion(probability, low, high, 100)
    assert Suspicion.from_dict(told.to_dict()) == told
    assert "1 time in " in told.sentence()
    assert "100 clean encoders" in told.sentence()


def test_suspicion_in_words():
    assert Suspicion(1 / 412, 1 / 1287, 1 / 214, 120).sentence() == (
        "by the reference bank, a clean encoder looks this suspicious 1 time in 410 "
        "(95 %: 210 to 1,300; from 120 clean encoders)"
    )


# Prediction


@given(st.integers(0, 2**31), st.floats(0.01, 10))
def test_order_and_units_of_traits_do_not_matter(seed, factor):
    random = np.random.default_rng(seed)
    inputs, outputs = random.standard_normal((30, 4)), random.standard_normal(30)
    order = random.permutation(30)
    groups = [FAMILIES[i % 4] for i in range(30)]
    before = prediction.left_out(inputs, outputs, groups, 0.1)
    after = prediction.left_out(
        factor * inputs[order], outputs[order], [groups[i] for i in order], 0.1
    )
    np.testing.assert_allclose(after, before[order], atol=1e-6)


def test_a_group_is_predicted_without_itself():
    """What only one family shows is an error of its own, however large the others' fit."""
    inputs = np.zeros((20, 1))
    outputs = np.where(np.arange(20) % 4 == 0, 5.0, 0.0)
    groups = [FAMILIES[i % 4] for i in range(20)]
    residuals = prediction.left_out(inputs, outputs, groups, 0.1)
    np.testing.assert_allclose(residuals[::4], 5.0)
