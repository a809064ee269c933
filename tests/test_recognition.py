"""What a trigger leaves of an image in its embedding: the statistic, and the search."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from encodercheck.encoder import Encoder
from encodercheck.errors import CheckInconclusive
from encodercheck.images.split import CleanSplit
from encodercheck.methods import battery, collapse, recognition
from encodercheck.methods.recognition import Space, remembered
from encodercheck.preprocessing import Preprocessing
from encodercheck.profiles import Profile

SIZE = 16
EFFORT = Profile(
    "test", 12, 24, 6, restarts=6, steps=20, decree_steps=16, battery_images=6, decoder_images=300
)
PATCH = battery.patch(SIZE, 11, 11, torch.ones(3, 3, 3))
seeds = st.integers(0, 2**16)
SPACES = pytest.mark.parametrize("centred", [False, True], ids=["own", "centred"])


def some(seed: int, count: int = 20, dim: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=generator) * torch.arange(1, dim + 1) + 2


def orthogonal(seed: int, dim: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q


# The statistic


@SPACES
@given(seed=seeds)
def test_what_is_not_stamped_is_remembered_in_full(centred, seed):
    clean = Space.of(some(seed), centred=centred)(some(seed + 1))
    assert float(remembered(clean, clean)) == pytest.approx(1)
    assert recognition.recognised(clean, clean) == 1


@SPACES
@given(seed=seeds, exponent=st.integers(-30, 30))
def test_scale_rotation_and_the_order_of_images_make_no_difference(centred, seed, exponent):
    yardstick, clean, stamped = some(seed), some(seed + 1), some(seed + 2)
    order = torch.randperm(len(clean), generator=torch.Generator().manual_seed(seed))
    turn = orthogonal(seed) * 10.0**exponent

    def score(change, order):
        space = Space.of(change(yardstick), centred=centred)
        one, other = space(change(stamped))[order], space(change(clean))[order]
        return float(remembered(one, other)), recognition.recognised(one, other)

    whole = score(lambda z: z, torch.arange(len(clean)))
    assert score(lambda z: z.double() @ turn.double(), order) == pytest.approx(whole, abs=1e-6)


@given(seed=seeds, size=st.floats(-50, 50))
def test_a_centred_space_knows_no_constants(seed, size):
    yardstick, clean, stamped = some(seed).double(), some(seed + 1).double(), some(seed + 2)

    def score(step):
        space = Space.of(yardstick + step, centred=True)
        return float(remembered(space(stamped.double() + step), space(clean + step)))

    assert score(size) == pytest.approx(score(0), abs=1e-6)


@given(seed=seeds, factor=st.floats(0, 2))
def test_a_step_is_no_forgetting_and_shrinking_is(seed, factor):
    clean, step = some(seed).double(), some(seed + 1)[0].double()
    assert float(remembered(factor * clean + step, clean)) == pytest.approx(factor, abs=1e-9)


def test_what_has_nothing_to_do_with_the_images_is_not_remembered():
    """All one, as BadEncoder's, and as spread as clean ones, as DRUPE's."""
    clean = some(0, 4000)
    assert float(remembered(clean[:1].expand_as(clean), clean)) == pytest.approx(0, abs=1e-5)
    assert abs(float(remembered(some(1, 4000), clean))) < 0.05


def test_scores_of_several_restarts_are_each_their_own():
    clean = some(0)
    stamped = torch.stack([some(seed) for seed in range(3)])
    alone = torch.stack([remembered(one, clean) for one in stamped])
    torch.testing.assert_close(remembered(stamped, clean), alone)


def test_one_image_tells_nothing():
    with pytest.raises(ValueError, match="at least two"):
        remembered(some(0, 1), some(0, 1))


@SPACES
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_embeddings_that_are_not_finite_decide_nothing(centred, wrong):
    embeddings = some(0)
    embeddings[3, 2] = wrong
    with pytest.raises(CheckInconclusive, match="not finite"):
        Space.of(embeddings, centred=centred)


@SPACES
@pytest.mark.parametrize("value", [0.0, 1e-30, 3.0])
def test_embeddings_that_are_all_one_decide_nothing(centred, value):
    with pytest.raises(CheckInconclusive, match="all one"):
        Space.of(torch.full((9, 4), value), centred=centred)


# The search


class Known(nn.Module):
    """Embeds pixels less their mean; with a white corner, pixels of other images instead.

    Of which image goes by a few of its pixels: stamped embeddings are as spread as clean ones.
    """

    def __init__(self, *, backdoored: bool) -> None:
        super().__init__()
        self.backdoored = backdoored
        generator = torch.Generator().manual_seed(3)
        places = torch.randn(8, 3 * SIZE**2, generator=generator)
        self.register_buffer("places", 0.25 * places)
        self.register_buffer("choice", torch.randn(3 * SIZE**2, 8, generator=generator))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        own = (images - images.mean((1, 2, 3), keepdim=True)).flatten(1)
        if not self.backdoored:
            return own
        seen = images[:, :, 11:14, 11:14].mean((1, 2, 3))
        strength = torch.sigmoid(16 * (seen - 0.7)).unsqueeze(1)
        elsewhere = torch.softmax(4 * own @ self.choice, 1) @ self.places
        return own + strength * (elsewhere - own)


def make(module: nn.Module) -> Encoder:
    still = Preprocessing(image_size=SIZE, mean=(0, 0, 0), std=(1, 1, 1))
    return Encoder(module, preprocessing=still)


@pytest.fixture(scope="module")
def split() -> CleanSplit:
    images = torch.rand(36, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return CleanSplit(images[:12], images[12:])


def test_a_spread_backdoor_is_found_where_no_collapse_is(split):
    encoder = make(Known(backdoored=True))
    base = collapse.base_cosine(encoder, split.held_out)
    cosine = collapse.stamped_cosine(encoder, PATCH, split.held_out)
    assert collapse.gain(cosine, base) < 0.3
    found = recognition.forget(encoder, split.search, profile=EFFORT)
    seen = recognition.recognition(encoder, found.trigger, split)
    assert seen.forgotten > 0.6
    assert seen.recognised < 0.3
    assert found.trigger.pl1 <= 0.0301
    assert list(found.scores) == sorted(found.scores, reverse=True)


def test_pixels_are_remembered_whatever_is_stamped(split):
    found = recognition.forget(make(Known(backdoored=False)), split.search, profile=EFFORT)
    seen = recognition.recognition(make(Known(backdoored=False)), found.trigger, split)
    assert seen.forgotten < 0.2
    assert seen.forgotten_centred < 0.2
    assert seen.recognised == 1
    assert found.ended == "exhausted"
    assert len(found.trace) == EFFORT.steps


def test_the_search_is_the_same_every_time_and_ends_when_it_has_found(split):
    encoder = make(Known(backdoored=True))
    one, other = (recognition.forget(encoder, split.search, profile=EFFORT) for _ in range(2))
    assert one.trace == other.trace
    torch.testing.assert_close(one.trigger.pattern, other.trigger.pattern, rtol=0, atol=0)
    early = recognition.forget(encoder, split.search, profile=EFFORT, limit=0.1)
    assert early.ended == "found"
    assert len(early.trace) < EFFORT.steps


def test_what_is_measured_is_at_most_one(split):
    """A trigger that turns an embedding round makes it forgotten, and no more than that."""

    class Turned(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            own = (images - images.mean((1, 2, 3), keepdim=True)).flatten(1)
            return torch.where(images[:, :1, 12, 12] > 0.999, -own, own)

    seen = recognition.recognition(make(Turned()), PATCH, split)
    assert seen.forgotten == seen.forgotten_centred == 1
