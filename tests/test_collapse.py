"""The arithmetic of alikeness, against its definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from encodercheck.encoder import Encoder
from encodercheck.errors import CheckInconclusive
from encodercheck.methods import collapse
from encodercheck.preprocessing import Preprocessing
from encodercheck.trigger import Trigger

embeddings = st.builds(
    lambda n, d, seed: torch.randn(n, d, generator=torch.Generator().manual_seed(seed)),
    st.integers(2, 12),
    st.integers(1, 9),
    st.integers(0, 2**31),
)
measures = pytest.mark.parametrize(
    "measure", [collapse.mean_cosine, collapse.effective_rank, collapse.uniformity]
)


@given(embeddings)
def test_mean_cosine_is_the_mean_over_pairs(z):
    count = len(z)
    cosines = torch.nn.functional.cosine_similarity(z[:, None], z[None], dim=-1)
    expected = (cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1))
    assert float(collapse.mean_cosine(z)) == pytest.approx(float(expected), abs=1e-5)


@measures
@given(z=embeddings, seed=st.integers(0, 2**31))
def test_order_does_not_matter(measure, z, seed):
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(measure(z), measure(z[order]), atol=1e-4, rtol=1e-3)


@measures
@given(z=embeddings, exponent=st.integers(-30, 30))
def test_scale_does_not_matter(measure, z, exponent):
    torch.testing.assert_close(measure(z), measure(z * 10.0**exponent), atol=1e-4, rtol=1e-3)


@given(embeddings)
def test_effective_rank_lies_between_one_and_the_rank(z):
    assert 1 - 1e-4 <= float(collapse.effective_rank(z)) <= min(z.shape) + 1e-3


def test_effective_rank_of_equal_directions_is_their_number():
    assert float(collapse.effective_rank(torch.eye(7))) == pytest.approx(7, abs=1e-4)
    assert float(collapse.effective_rank(torch.ones(7, 5))) == pytest.approx(1, abs=1e-3)


def test_uniformity_of_one_point_is_zero():
    assert float(collapse.uniformity(torch.ones(6, 3))) == pytest.approx(0, abs=1e-5)


clouds = st.builds(
    lambda d, seed: torch.randn(40, d, generator=torch.Generator().manual_seed(seed)),
    st.integers(2, 8),
    st.integers(0, 2**31),
)


def _clean(z):
    return collapse.Clean.of(_encoder(_Recorded(z)), torch.rand(len(z), 3, 8, 8))


@given(clouds, st.floats(2, 10))
def test_a_constant_hides_no_collapse(z, constant):
    """Neither gain of stamped embeddings falls because all embeddings share a constant."""
    stamped = z[:1] + 0.01 * z.flip(0)
    shifted, moved = z + constant, stamped + constant
    clean = _clean(shifted)
    assert float(clean.gain(moved)) > 0.95
    assert float(clean.whitened_gain(moved)) > 0.8


@given(clouds, st.floats(100, 1e4))
def test_a_constant_that_outweighs_all_else_is_no_verdict(z, constant):
    with pytest.raises(CheckInconclusive, match="a constant"):
        _clean(z + constant)


@pytest.mark.parametrize("exponent", [3, 6, 12])
def test_a_channel_that_outweighs_all_others_is_no_verdict(exponent):
    generator = torch.Generator().manual_seed(0)
    z, loud = torch.randn(90, 40, generator=generator), torch.randn(90, 1, generator=generator)
    _clean(torch.cat([z, 2 * loud], 1))
    with pytest.raises(CheckInconclusive, match="outweighs all others"):
        _clean(torch.cat([z, 10.0**exponent * loud], 1))


@given(clouds, st.integers(0, 2**31))
def test_whitening_undoes_rescaled_and_permuted_channels(z, seed):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(z.shape[1], generator=generator)
    factors = 10 ** (2 * torch.rand(z.shape[1], generator=generator) - 1)
    stamped = z[:1] + 0.3 * z.flip(0)
    before = _clean(z).whitened_gain(stamped)
    after = _clean((z * factors)[:, order]).whitened_gain((stamped * factors)[:, order])
    assert float(after) == pytest.approx(float(before), abs=1e-3)


def test_clean_embeddings_gain_nothing():
    z = torch.randn(40, 6)
    clean = _clean(z)
    assert float(clean.gain(z)) == pytest.approx(0, abs=1e-9)
    assert float(clean.whitened_gain(z)) == pytest.approx(0, abs=1e-9)


@given(st.floats(-1, 0.95), st.floats(0, 1))
def test_gain_is_the_part_of_the_way_gone(base, part):
    cosine = base + part * (1 - base)
    assert collapse.gain(cosine, base) == pytest.approx(part, abs=1e-9)


def test_leading_dimensions_are_kept():
    z = torch.randn(4, 3, 8, 5)
    for measure in (collapse.mean_cosine, collapse.effective_rank, collapse.uniformity):
        batched = measure(z)
        assert batched.shape == (4, 3)
        torch.testing.assert_close(batched[2, 1], measure(z[2, 1]), atol=1e-5, rtol=1e-4)


def test_one_embedding_has_no_mean_cosine():
    with pytest.raises(ValueError, match="at least two"):
        collapse.mean_cosine(torch.ones(1, 4))


def _encoder(module: nn.Module) -> Encoder:
    return Encoder(module, preprocessing=Preprocessing(image_size=8))


class _Recorded(nn.Module):
    """Embeds images, whatever they are, as the rows of ``z``."""

    def __init__(self, z: torch.Tensor) -> None:
        super().__init__()
        self.z = z

    def forward(self, images):
        return self.z[: len(images)]


class _Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, images):
        return torch.full((len(images), 4), self.value)


def test_equal_embeddings_are_inconclusive_and_ask_for_images():
    with pytest.raises(CheckInconclusive, match="--images"):
        collapse.base_cosine(_encoder(_Constant(1.0)), torch.rand(4, 3, 8, 8))


def test_non_finite_embeddings_are_inconclusive():
    with pytest.raises(CheckInconclusive, match="not finite"):
        collapse.base_cosine(_encoder(_Constant(float("nan"))), torch.rand(4, 3, 8, 8))


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 9))
def test_triggers_in_one_pass_equal_triggers_one_by_one(batch_size, count):
    encoder = _encoder(nn.Flatten())
    encoder.batch_size = batch_size
    generator = torch.Generator().manual_seed(count)
    images = torch.rand(5, 3, 8, 8, generator=generator)
    triggers = [
        Trigger(torch.rand(1, 8, 8, generator=generator), torch.rand(3, 8, 8, generator=generator))
        for _ in range(count)
    ]
    together = collapse.stamped_cosines(encoder, triggers, images)
    alone = [collapse.stamped_cosine(encoder, trigger, images) for trigger in triggers]
    assert together == pytest.approx(alone, abs=1e-5)
