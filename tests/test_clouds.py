"""The second world of images: in range, repeatable, labelled, and unlike the embedded one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encodercheck.fixtures import worlds
from encodercheck.fixtures.clouds import CLASSES, REGIONS, scenes
from encodercheck.images import procedural

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
    assert bool(((labels >= 0) & (labels < len(CLASSES))).all())


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


def test_more_images_than_a_chunk_holds() -> None:
    pictures, labels = scenes(1100, size=8, seed=0)
    assert len({row.numpy().tobytes() for row in pictures}) == 1100
    assert sorted(set(labels.tolist())) == list(range(10))


def test_no_global_random_number_is_drawn() -> None:
    before = torch.random.get_rng_state()
    scenes(5, size=16, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def light(n: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return grey images (n, 32, 32) less their mean, and labels (n,)."""
    pictures, labels = scenes(n, size=32, seed=seed)
    grey = pictures.mean(1)
    return grey - grey.mean((1, 2), keepdim=True), labels


def test_light_fronts_are_light_and_dark_ones_dark() -> None:
    grey, labels = light(1000, seed=0)
    # Blotches lie anywhere: their middle says nothing.
    grey, labels = (part[labels % len(REGIONS) != 4] for part in (grey, labels))
    middle, edge = grey[:, 8:24, 8:24].mean((1, 2)), grey[:, [0, -1]].mean((1, 2))
    found = (middle > edge) == (labels < len(REGIONS))
    assert float(found.double().mean()) > 0.85


def test_the_ten_classes_can_be_told_apart_by_their_mean_images() -> None:
    (train, train_labels), (test, labels) = light(1000, seed=1), light(500, seed=2)
    means = torch.stack([train[train_labels == label].mean(0) for label in range(10)])
    found = torch.cdist(test.flatten(1), means.flatten(1)).argmin(1)
    assert float((found == labels).double().mean()) > 0.4


def test_clouds_are_paler_than_the_embedded_images() -> None:
    own, others = (
        pictures.amax(1).sub(pictures.amin(1)).mean((1, 2))
        for pictures in (scenes(500, size=32, seed=0)[0], procedural.images(500, size=32, seed=0))
    )
    assert float((own < 0.15).double().mean()) > 0.9
    assert float((others > 0.15).double().mean()) > 0.9


@pytest.mark.parametrize("world", worlds.WORLDS)
def test_every_world_has_ten_classes(world: str) -> None:
    pictures, labels = worlds.WORLDS[world](3, size=32, seed=0, objects=[9, 0, 9])
    assert pictures.shape == (3, 3, 32, 32)
    assert labels.tolist() == [9, 0, worlds.CLASSES - 1]
