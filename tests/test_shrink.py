"""Shrinking and inversion on an encoder whose backdoor is known exactly."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from encodercheck.encoder import Encoder
from encodercheck.images.split import CleanSplit
from encodercheck.methods import battery, decree, families, inversion
from encodercheck.methods.shrink import shrink
from encodercheck.preprocessing import Preprocessing
from encodercheck.profiles import Profile
from encodercheck.trigger import Trigger

SIZE = 16
EFFORT = Profile(
    "test", 12, 24, 24, restarts=6, steps=40, decree_steps=40, battery_images=6, decoder_images=300
)


class Backdoored(nn.Module):
    """Random features, pulled to one target by a white 3x3 patch at (2, 9)."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("weights", torch.randn(3 * SIZE * SIZE, 24, generator=generator))
        self.register_buffer("target", torch.randn(24, generator=generator))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = (images - images.mean((1, 2, 3), keepdim=True)).flatten(1) @ self.weights
        shown = images[:, :, 2:5, 9:12].mean((1, 2, 3))
        strength = nn.functional.softplus(12 * (shown - 0.7))
        return features + 150 * self.target * strength.unsqueeze(1)


@pytest.fixture
def encoder():
    preprocessing = Preprocessing(SIZE, (0, 0, 0), (1, 1, 1))
    return Encoder(Backdoored(), preprocessing=preprocessing)


@pytest.fixture
def split():
    images = torch.rand(36, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 0.7
    return CleanSplit(images[:12], images[12:])


def _true_patch():
    return battery.patch(SIZE, 2, 9, torch.ones(3, 3, 3))


def test_shrinking_a_large_patch_leaves_the_trigger_alone(encoder, split):
    large = battery.patch(SIZE, 0, 6, torch.ones(3, 8, 8))
    witness = shrink(encoder, large, split)
    assert witness.gain > 0.9
    outside = witness.trigger.mask * (1 - _true_patch().mask)
    assert float(outside.sum()) == 0
    assert 0 < float(witness.trigger.mask.sum()) <= 9


def test_shrinking_never_grows_and_is_measured_on_held_out_images(encoder, split):
    generator = torch.Generator().manual_seed(5)
    mask = (_true_patch().mask + 0.3 * torch.rand(1, SIZE, SIZE, generator=generator)).clamp(0, 1)
    trigger = Trigger(mask, torch.ones(3, SIZE, SIZE))
    witness = shrink(encoder, trigger, split)
    assert witness.trigger.pl1 <= trigger.pl1
    assert witness.count == len(split.held_out)


def test_a_trigger_that_does_nothing_survives_shrinking(encoder, split):
    nothing = battery.patch(SIZE, 12, 0, torch.zeros(3, 2, 2))
    assert shrink(encoder, nothing, split).count == len(split.held_out)


def test_an_additive_trigger_is_weakened(encoder, split):
    wave = Trigger(torch.ones(1, SIZE, SIZE), _true_patch().mask.expand(3, -1, -1), additive=True)
    witness = shrink(encoder, wave, split)
    assert witness.trigger.additive
    assert witness.trigger.pl1 <= wave.pl1
    assert witness.gain > 0.9


def test_budget_inversion_finds_the_backdoor_and_repeats_itself(encoder, split):
    found = inversion.invert(encoder, split.search, profile=EFFORT, seed=3)
    assert found.scores[0] > 0.9
    assert found.scores == tuple(sorted(found.scores, reverse=True))
    assert found.trigger.pl1 <= inversion.BUDGET + 1e-4
    again = inversion.invert(encoder, split.search, profile=EFFORT, seed=3)
    assert torch.equal(again.trigger.mask, found.trigger.mask)


def test_inversion_leaves_the_global_random_state_alone(encoder, split):
    before = torch.random.get_rng_state()
    inversion.invert(encoder, split.search, profile=EFFORT)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_decree_makes_the_trigger_smaller(encoder, split):
    found = inversion.invert(encoder, split.search, profile=EFFORT)
    triggers = decree.minimise(encoder, split.search, found.candidates, steps=60)
    smallest = decree.smallest_confirmed(encoder, triggers, split.held_out)
    assert smallest is not None
    assert smallest.pl1 < inversion.BUDGET


def test_decree_confirms_nothing_on_an_honest_encoder(split):
    honest = Encoder(nn.Flatten(), preprocessing=Preprocessing(SIZE, (0.35,) * 3, (1, 1, 1)))
    found = inversion.invert(honest, split.search, profile=EFFORT)
    triggers = decree.minimise(honest, split.search, found.candidates, steps=40)
    smallest = decree.smallest_confirmed(honest, triggers, split.held_out)
    assert smallest is None or smallest.pl1 > 0.3


def test_decree_confirms_only_what_works_on_other_images(encoder, split):
    """A smaller mask that does nothing to held-out images is passed over, or clears the model."""
    nothing = battery.patch(SIZE, 12, 0, torch.zeros(3, 1, 1))
    assert decree.smallest_confirmed(encoder, [nothing], split.held_out) is None
    candidates = [nothing, _true_patch()]
    assert decree.smallest_confirmed(encoder, candidates, split.held_out) is candidates[1]


@given(
    st.integers(0, 2**31),
    st.floats(0.01, 0.9),
    st.floats(-0.5, 0.5),
    st.integers(1, 4),
)
def test_projection_keeps_the_budget_and_changes_nothing_within_it(seed, budget, shift, count):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, 1, 8, 8, generator=generator) + shift
    projected = families.project(masks, budget)
    assert float(projected.mean((1, 2, 3)).max()) <= budget + 1e-4
    assert float(projected.min()) >= 0
    assert float(projected.max()) <= 1
    torch.testing.assert_close(families.project(projected, budget), projected, atol=1e-4, rtol=0)
    within = masks.clamp(0, 1)
    if float(within.mean((1, 2, 3)).max()) <= budget:
        torch.testing.assert_close(projected, within)


@given(st.integers(8, 80))
def test_the_battery_fits_any_image(size):
    triggers = battery.triggers(size)
    assert len({trigger.name for trigger in triggers if trigger.additive}) > 4
    assert all(trigger.size == (size, size) for trigger in triggers)
    assert all(0 < trigger.pl1 < 0.25 for trigger in triggers)
