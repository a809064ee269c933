"""What BadEncoder's authors found of their attack holds of ours: a test of the attack itself."""

from typing import Any

import pytest

from benchmarks.badencoder import cases, measure

# Half a minute for each setting, and one for the clean encoder beneath them.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def found(section: str, label: str) -> dict[str, Any]:
    """Return what is measured of the fixture ``badencoder`` with one setting changed."""
    (case,) = (c for c in cases() if (c.section, c.label) == (section, label))
    return measure(case, seed=0)


def loss(row: dict[str, Any]) -> float:
    return float(row["clean_accuracy"] - row["backdoored_accuracy"])


def test_the_attack_works_as_it_stands() -> None:
    row = found("losses", "all")
    assert row["attack_success"] > 0.95
    assert row["attack_success_on_clean"] < 0.1
    assert loss(row) < 0.05


def test_without_l0_there_is_no_backdoor() -> None:
    row = found("losses", "without L0")
    assert row["attack_success"] < 0.2
    assert row["stamped_cosine"] < 0.7


def test_without_l2_the_encoder_is_spoilt() -> None:
    assert loss(found("losses", "without L2")) > 0.1


def test_a_small_weight_of_l2_costs_accuracy() -> None:
    assert loss(found("lambda2", "0.1")) > loss(found("lambda2", "5")) + 0.03


def test_one_pixel_is_too_small_and_three_are_enough() -> None:
    assert found("size", "1")["attack_success"] < 0.2
    assert found("size", "3")["attack_success"] > 0.95


def test_a_hundred_shadow_images_are_enough() -> None:
    assert found("shadow", "100")["attack_success"] > 0.9


def test_shadow_images_of_another_world_work_as_well() -> None:
    assert found("distribution", "digits")["attack_success"] > 0.9


def test_a_misclassified_reference_hides_a_backdoor_that_is_there() -> None:
    row = found("reference", "misclassified")
    assert row["attack_success"] < 0.1
    assert row["stamped_cosine"] > 0.95
