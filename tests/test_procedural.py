"""Procedural images: in range, the same for the same seed, whatever their number."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encodercheck.images import procedural
from encodercheck.images.procedural import CLASSES, images, scenes

SEEDS = st.integers(0, 2**48)
SIZES = st.integers(1, 40)
relaxed = settings(deadline=None, max_examples=30)


@relaxed
@given(n=st.integers(0, 6), size=SIZES, seed=SEEDS)
def test_shapes_ranges_and_types(n: int, size: int, seed: int) -> None:
    pictures, labels = scenes(n, size=size, seed=seed)
    assert pictures.shape == (n, 3, size, size)
    assert pictures.dtype == torch.float32
    assert labels.shape == (n,)
    assert labels.dtype == torch.int64
    assert bool(((pictures >= 0) & (pictures <= 1)).all())
    assert bool(((labels >= 0) & (labels < len(CLASSES))).all())


@relaxed
@given(size=SIZES, seed=SEEDS)
def test_same_seed_same_images_another_seed_others(size: int, seed: int) -> None:
    first, labels = scenes(3, size=size, seed=seed)
    again, labels_again = scenes(3, size=size, seed=seed)
    assert torch.equal(first, again)
    assert torch.equal(labels, labels_again)
    assert not torch.equal(first, images(3, size=size, seed=seed + 1))


@relaxed
@given(few=st.integers(0, 5), more=st.integers(0, 5), size=SIZES, seed=SEEDS)
def test_image_i_does_not_depend_on_how_many(few: int, more: int, size: int, seed: int) -> None:
    short, labels = scenes(few, size=size, seed=seed)
    long, more_labels = scenes(few + more, size=size, seed=seed)
    assert torch.equal(short, long[:few])
    assert torch.equal(labels, more_labels[:few])


def test_the_prefix_property_holds_across_chunks() -> None:
    assert torch.equal(images(600, size=32, seed=1)[:5], images(5, size=32, seed=1))
    assert torch.equal(images(20, size=224, seed=1)[:2], images(2, size=224, seed=1))


def test_a_seed_shows_the_same_scene_at_every_size() -> None:
    small, large = images(8, size=32, seed=4), images(8, size=128, seed=4)
    shrunk = torch.nn.functional.avg_pool2d(large, 4)
    assert float((small - shrunk).abs().mean()) < 0.05
    assert float((small - shrunk.roll(1, 0)).abs().mean()) > 0.1


@pytest.mark.parametrize("as_tensor", [False, True])
def test_objects_are_drawn_as_asked(as_tensor: bool) -> None:
    wanted = [3, 3, 9, 0]
    _, labels = scenes(4, size=8, seed=0, objects=torch.tensor(wanted) if as_tensor else wanted)
    assert labels.tolist() == wanted


def test_asking_for_the_random_objects_changes_nothing() -> None:
    pictures, labels = scenes(6, size=16, seed=2)
    assert torch.equal(scenes(6, size=16, seed=2, objects=labels)[0], pictures)


def test_every_class_looks_different() -> None:
    # One seed a class, so that the object alone differs.
    singles = torch.cat([scenes(1, size=32, seed=7, objects=[c])[0] for c in range(len(CLASSES))])
    differences = torch.cdist(singles.flatten(1), singles.flatten(1), p=1) / singles[0].numel()
    assert float((differences + torch.eye(len(CLASSES))).min()) > 0.01


@pytest.mark.parametrize(
    ("n", "size", "objects"),
    [(-1, 8, None), (1, 0, None), (2, 8, [1]), (1, 8, [10]), (1, 8, [-1]), (1, 8, 3)],
)
def test_nonsense_is_refused(n: int, size: int, objects: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        scenes(n, size=size, seed=0, objects=objects)  # type: ignore[arg-type]


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    images(4, size=32, seed=0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_labels_are_balanced_and_images_diverse() -> None:
    pictures, labels = scenes(2000, size=16, seed=0)
    assert int(labels.bincount(minlength=len(CLASSES)).min()) > 140
    assert float(pictures.std(0).min()) > 0.08


def test_hsv_corners() -> None:
    hue = torch.tensor([0, 1 / 3, 2 / 3, 1.0]).view(-1, 1, 1)
    one = torch.ones(4, 1, 1)
    red, green, blue, again = procedural._hsv_to_rgb(hue, one, one).flatten(1).round(decimals=4)
    assert red.tolist() == again.tolist() == [1, 0, 0]
    assert green.tolist() == [0, 1, 0]
    assert blue.tolist() == [0, 0, 1]


@pytest.mark.parametrize(("n", "size", "limit"), [(1000, 32, 1.25), (64, 224, 0.75)])
@pytest.mark.slow
def test_it_is_cheap(n: int, size: int, limit: float) -> None:
    images(8, size=size, seed=0)
    start = time.perf_counter()
    images(n, size=size, seed=0)
    assert time.perf_counter() - start < limit
