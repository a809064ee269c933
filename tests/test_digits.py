"""The third world of images: in range, repeatable, labelled, and legible."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encodercheck.fixtures.digits import GLYPHS, scenes

SEEDS = st.integers(0, 2**48)
SIZES = st.integers(2, 40)


@given(n=st.integers(1, 6), size=SIZES, seed=SEEDS)
def test_shapes_ranges_and_types(n: int, size: int, seed: int) -> None:
    pictures, labels = scenes(n, size=size, seed=seed)
    assert pictures.shape == (n, 3, size, size)
    assert pictures.dtype == torch.float32
    assert labels.shape == (n,)
    assert labels.dtype == torch.int64
    assert bool(((pictures >= 0) & (pictures <= 1)).all())
    assert bool(((labels >= 0) & (labels < len(GLYPHS))).all())


@given(size=SIZES, seed=SEEDS)
def test_same_seed_same_images_another_seed_others(size: int, seed: int) -> None:
    first, labels = scenes(3, size=size, seed=seed)
    again, labels_again = scenes(3, size=size, seed=seed)
    assert torch.equal(first, again)
    assert torch.equal(labels, labels_again)
    assert not torch.equal(first, scenes(3, size=size, seed=seed + 1)[0])


@given(objects=st.lists(st.integers(0, 9), min_size=1, max_size=6), seed=SEEDS)
def test_the_labels_asked_for_are_drawn(objects: list[int], seed: int) -> None:
    pictures, labels = scenes(len(objects), size=16, seed=seed, objects=objects)
    assert labels.tolist() == objects
    from_tensor, _ = scenes(len(objects), size=16, seed=seed, objects=torch.tensor(objects))
    assert torch.equal(pictures, from_tensor)


def test_labels_drawn_at_random_can_be_asked_for() -> None:
    pictures, labels = scenes(40, size=16, seed=3)
    again, _ = scenes(40, size=16, seed=3, objects=labels)
    assert torch.equal(pictures, again)


@pytest.mark.parametrize("size", [16, 32])
def test_the_first_of_many_are_those_of_few(size: int) -> None:
    many, labels = scenes(1100, size=size, seed=0)
    few, own = scenes(5, size=size, seed=0)
    assert torch.equal(many[:5], few)
    assert torch.equal(labels[:5], own)
    assert sorted(set(labels.tolist())) == list(range(10))
    assert len({row.numpy().tobytes() for row in many}) == 1100


def test_no_image_at_all() -> None:
    pictures, labels = scenes(0, size=32, seed=0)
    assert (pictures.shape, labels.shape) == ((0, 3, 32, 32), (0,))


def test_one_seed_shows_the_same_at_every_size() -> None:
    small, large = (scenes(20, size=size, seed=0)[0] for size in (32, 224))
    shrunk = torch.nn.functional.interpolate(large, size=(32, 32), mode="area")
    assert float((small - shrunk).abs().mean()) < 0.03


def test_no_global_random_number_is_drawn() -> None:
    before = torch.random.get_rng_state()
    scenes(5, size=16, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def strokes(n: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how far pixels (n, 1024) are from the middle of their image's greys, and labels."""
    pictures, labels = scenes(n, size=32, seed=seed)
    grey = pictures.mean(1)
    return (grey - grey.flatten(1).median(1).values.view(-1, 1, 1)).abs().flatten(1), labels


def test_the_ten_digits_can_be_told_apart_by_their_mean_images() -> None:
    (train, train_labels), (test, labels) = strokes(1000, seed=1), strokes(500, seed=2)
    means = torch.stack([train[train_labels == label].mean(0) for label in range(10)])
    found = torch.nn.functional.normalize(test) @ torch.nn.functional.normalize(means).T
    assert float((found.argmax(1) == labels).double().mean()) > 0.7


def test_strokes_stand_out_from_what_is_behind_them() -> None:
    far, _ = strokes(500, seed=0)
    assert float(far.quantile(0.95, dim=1).min()) > 0.15


def test_no_two_digits_have_the_same_strokes() -> None:
    assert len(GLYPHS) == len(set(GLYPHS)) == 10
