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
    torch.testing.assert_close(collapse.mean_cosine(z), expected, atol=1e-5, rtol=1e-4)


@measures
@given(z=embeddings, seed=st.integers(0, 2**31))
def test_order_does_not_matter(measure, z, seed):
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(measure(z), measure(z[order]), atol=1e-4, rtol=1e-3)


@measures
@given(z=embeddings, scale=st.floats(0.01, 100))
def test_scale_does_not_matter(measure, z, scale):
    torch.testing.assert_close(measure(z), measure(z * scale), atol=1e-4, rtol=1e-3)


@given(embeddings)
def test_effective_rank_lies_between_one_and_the_rank(z):
    assert 1 - 1e-4 <= float(collapse.effective_rank(z)) <= min(z.shape) + 1e-3


def test_effective_rank_of_equal_directions_is_their_number():
    assert float(collapse.effective_rank(torch.eye(7))) == pytest.approx(7, abs=1e-4)
    assert float(collapse.effective_rank(torch.ones(7, 5))) == pytest.approx(1, abs=1e-3)


def test_uniformity_of_one_point_is_zero():
    assert float(collapse.uniformity(torch.ones(6, 3))) == pytest.approx(0, abs=1e-5)


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


class _Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, images):
        return torch.full((len(images), 4), self.value)


def test_parallel_embeddings_are_inconclusive_and_ask_for_images():
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
