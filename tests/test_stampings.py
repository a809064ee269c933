"""Triggers that depend on the image, and how triggers are kept."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from encodercheck.fixtures import triggers
from encodercheck.fixtures.recipes import Blend, Moving, Patch, Stamp, Tint, Warp, Wave
from encodercheck.fixtures.stampings import MovingPatch, WarpField, from_tensors, to_tensors
from encodercheck.trigger import Trigger

STAMPS: tuple[Stamp, ...] = (
    Patch(None, None, 4, target=1),
    Blend(1),
    Wave(1),
    Tint(1),
    Moving(5, target=1),
    Moving(3, target=1, colour=(1.0, 0.0, 0.0)),
    Warp(target=1),
)


def drawn(count: int = 6, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("stamp", STAMPS, ids=lambda stamp: stamp.kind)
@given(seed=st.integers(0, 1000))
def test_every_trigger_keeps_shape_and_range_and_leaves_its_images_alone(
    stamp: Stamp, seed: int
) -> None:
    images = drawn()
    before = images.clone()
    trigger = triggers.trigger(stamp, seed=seed)
    stamped = trigger.stamp(images)
    assert stamped.shape == images.shape
    assert bool(((stamped >= 0) & (stamped <= 1)).all())
    assert torch.equal(images, before)
    assert not torch.equal(stamped, images)
    # One image at a time, in any order, gets what it gets among others.
    alone = torch.cat([trigger.stamp(image.unsqueeze(0)) for image in images.flip(0)]).flip(0)
    assert torch.allclose(alone, stamped, atol=1e-6)
    assert trigger.describe()


@pytest.mark.parametrize("stamp", STAMPS, ids=lambda stamp: stamp.kind)
def test_a_trigger_is_kept_as_tensors(stamp: Stamp) -> None:
    trigger, images = triggers.trigger(stamp, seed=3), drawn()
    tensors = {**to_tensors(trigger), "reference": torch.zeros(3, 32, 32)}
    again = from_tensors(tensors)
    assert type(again) is type(trigger)
    assert torch.equal(again.stamp(images), trigger.stamp(images))
    assert again.describe() == trigger.describe()


def test_what_is_no_trigger_is_not_kept() -> None:
    with pytest.raises(TypeError, match="SimpleNamespace"):
        to_tensors(SimpleNamespace())  # type: ignore[arg-type]


@given(st.integers(1, 32), st.integers(1, 32), st.integers(0, 100))
def test_a_moving_patch_changes_one_rectangle_of_each_image(
    height: int, width: int, seed: int
) -> None:
    pixels = torch.full((3, height, width), 2.0)
    images = drawn(4, seed)
    changed = (MovingPatch(pixels).stamp(images) == 2).all(1)
    for mask in changed:
        assert int(mask.sum()) == height * width
        trigger = Trigger(mask.float().unsqueeze(0), torch.zeros(3, 32, 32))
        assert trigger.box[2:] == (height, width)


def test_a_moving_patch_moves() -> None:
    stamped = MovingPatch(torch.full((3, 4, 4), 2.0)).stamp(drawn(40))
    places = {tuple((image == 2).nonzero()[0].tolist()) for image in stamped}
    assert len(places) > 30


def test_no_warp_changes_nothing_and_a_shift_shifts() -> None:
    images = drawn()
    assert torch.allclose(WarpField(torch.zeros(2, 32, 32)).stamp(images), images, atol=1e-5)
    down = torch.zeros(2, 32, 32)
    down[0] = 3
    shifted = WarpField(down).stamp(images)
    assert torch.allclose(shifted[:, :, :-3], images[:, :, 3:], atol=1e-5)


def test_a_warp_moves_no_pixel_further_than_it_says() -> None:
    trigger = triggers.trigger(Warp(target=0, strength=1.5), seed=4)
    assert isinstance(trigger, WarpField)
    assert float(trigger.field.abs().max()) == pytest.approx(1.5)
    assert "1.5 pixels" in trigger.describe()
