"""Stamping, sizes and descriptions of triggers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encodercheck.trigger import Trigger, stamp

EITHER = st.booleans()


@st.composite
def triggers(draw, additive=EITHER):
    size = draw(st.integers(2, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    mask = torch.rand(1, size, size, generator=generator)
    mask = mask * (torch.rand(1, size, size, generator=generator) < draw(st.floats(0, 1)))
    pattern = torch.rand(3, size, size, generator=generator)
    if draw(additive):
        return Trigger(mask, pattern * 2 - 1, additive=True)
    return Trigger(mask, pattern)


def _images(trigger, count=3):
    return torch.rand(count, 3, *trigger.size, generator=torch.Generator().manual_seed(0))


@given(triggers())
def test_stamped_images_stay_images(trigger):
    stamped = trigger.stamp(_images(trigger))
    assert stamped.shape == _images(trigger).shape
    assert float(stamped.min()) >= -1e-6
    assert float(stamped.max()) <= 1 + 1e-6


@given(triggers())
def test_pixels_outside_the_mask_are_untouched(trigger):
    images = _images(trigger)
    outside = (trigger.mask == 0).expand_as(images)
    assert torch.equal(trigger.stamp(images)[outside], images[outside])


@given(triggers(additive=st.just(False)))
def test_an_opaque_mask_shows_the_pattern_alone(trigger):
    opaque = Trigger(torch.ones_like(trigger.mask), trigger.pattern)
    stamped = opaque.stamp(_images(trigger))
    torch.testing.assert_close(stamped, trigger.pattern.expand_as(stamped))


@given(triggers(additive=st.just(False)))
def test_stamping_an_opaque_patch_twice_is_stamping_it_once(trigger):
    patch = Trigger((trigger.mask > 0).float(), trigger.pattern)
    once = patch.stamp(_images(trigger))
    torch.testing.assert_close(patch.stamp(once), once)


@given(triggers())
def test_pl1_lies_between_zero_and_one(trigger):
    assert 0 <= trigger.pl1 <= 1


@given(triggers(), st.floats(0, 1))
def test_pl1_scales_with_the_mask(trigger, factor):
    scaled = Trigger(trigger.mask * factor, trigger.pattern, additive=trigger.additive)
    assert scaled.pl1 == pytest.approx(trigger.pl1 * factor, abs=1e-6)


@given(triggers(), st.floats(0, 1))
def test_less_contrast_is_a_smaller_distance_from_mid_grey(trigger, contrast):
    """The mask stays; an additive pattern, which is a distance already, is scaled."""
    faint = trigger.at_contrast(contrast)
    middle = 0.0 if trigger.additive else 0.5
    torch.testing.assert_close(faint.pattern - middle, contrast * (trigger.pattern - middle))
    assert faint.mask is trigger.mask
    torch.testing.assert_close(trigger.at_contrast(1.0).pattern, trigger.pattern)


@given(triggers())
def test_the_box_holds_every_visible_pixel(trigger):
    top, left, height, width = trigger.box
    outside = trigger.mask.clone()
    outside[:, top : top + height, left : left + width] = 0
    assert float(outside.max()) <= 0.05


def test_stamping_broadcasts_over_restarts():
    images, masks, patterns = torch.rand(5, 3, 4, 4), torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    together = stamp(images, masks.unsqueeze(1), patterns.unsqueeze(1))
    assert together.shape == (2, 5, 3, 4, 4)
    torch.testing.assert_close(together[1], Trigger(masks[1], patterns[1]).stamp(images))


def test_a_patch_is_described_by_size_place_and_share():
    mask = torch.zeros(1, 32, 32)
    mask[:, 27:, 27:] = 1
    trigger = Trigger(mask, torch.ones(3, 32, 32))
    assert trigger.describe() == "a 5x5 patch at (27, 27), 2.4 % of the image"


def test_a_scattered_mask_is_not_called_a_patch():
    mask = torch.zeros(1, 32, 32)
    mask[0, 3, 4] = mask[0, 10, 9] = 1
    assert Trigger(mask, torch.ones(3, 32, 32)).describe().startswith("a 8x6 speckle at (3, 4)")


@pytest.mark.parametrize(
    ("mask", "pattern"),
    [
        (torch.zeros(4, 4), torch.zeros(3, 4, 4)),
        (torch.zeros(1, 4, 4), torch.zeros(3, 5, 4)),
        (torch.full((1, 4, 4), 1.5), torch.zeros(3, 4, 4)),
        (torch.full((1, 4, 4), float("nan")), torch.zeros(3, 4, 4)),
        (torch.zeros(1, 4, 4), torch.full((3, 4, 4), -0.5)),
    ],
)
def test_impossible_triggers_are_refused(mask, pattern):
    with pytest.raises(ValueError, match="trigger"):
        Trigger(mask, pattern)
