"""Attacks on the images of pre-training: what is tampered with, and what comes of it."""

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_fixtures import TINY
from torch import Tensor, nn

from encodercheck import fixtures
from encodercheck.fixtures import network, triggers
from encodercheck.fixtures.attacks import Target, TargetInputs, ctrl, poisonedencoder, poisoning
from encodercheck.fixtures.attacks.poisonedencoder import WithCombined
from encodercheck.fixtures.pretraining import draw
from encodercheck.fixtures.recipes import (
    IMAGE_SIZE,
    Ctrl,
    PoisonedEncoder,
    Poisoning,
    Pretraining,
    ResNet,
    Wave,
    stream,
)
from encodercheck.images import procedural
from encodercheck.trigger import Trigger

SEEDS = st.integers(0, 2**48)
CTRL = Ctrl(target=1, rate=0.05, boost=2.0)
INPUTS = PoisonedEncoder(target=1, inputs=4, references=6)
ATTACKS: dict[str, Poisoning] = {"ctrl": CTRL, "poisonedencoder": INPUTS}
SETTINGS = {"pretraining": TINY.pretraining, "seed": 0, "world": "procedural", "device": "cpu"}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clean() -> nn.Module:
    """Return an encoder that takes no part in these attacks."""
    with torch.random.fork_rng(devices=[]):
        return network.new_network(ResNet(width=8))


def attack(clean: nn.Module, recipe: Poisoning, **settings: object) -> ctrl.Attack:
    module = import_module(f"encodercheck.fixtures.attacks.{recipe.kind}")
    made: ctrl.Attack = module.Attack(clean, recipe, **{**SETTINGS, **settings})
    return made


# CTRL


@given(seed=SEEDS, rate=st.floats(0, 0.2), target=st.integers(0, 9))
def test_ctrl_poisons_its_share_of_the_images_all_of_the_target_class(
    clean: nn.Module, seed: int, rate: float, target: int
) -> None:
    images, labels = procedural.scenes(80, size=IMAGE_SIZE, seed=3)
    made = attack(clean, Ctrl(target=target, rate=rate), seed=seed)
    changed = (made.poisoned(images, labels) != images).flatten(1).any(1)
    available = int((labels == target).sum())
    assert int(changed.sum()) == min(round(rate * len(images)), available)
    assert bool((labels[changed] == target).all())


def test_ctrl_stamps_the_wave_of_training_and_leaves_its_input_alone(clean: nn.Module) -> None:
    images, labels = procedural.scenes(80, size=IMAGE_SIZE, seed=3)
    before = images.clone()
    made = attack(clean, CTRL).poisoned(images, labels)
    assert torch.equal(images, before)
    wave = triggers.trigger(Wave(1, CTRL.frequencies, CTRL.amplitude), seed=0)
    changed = (made != images).flatten(1).any(1)
    assert torch.equal(made[changed], wave.stamp(images[changed]))


def test_ctrl_chooses_other_images_with_another_seed(clean: nn.Module) -> None:
    images, labels = procedural.scenes(200, size=IMAGE_SIZE, seed=3)
    first, again, other = (
        attack(clean, CTRL, seed=seed).poisoned(images, labels) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_wave_that_is_used_is_stronger_than_that_of_training(clean: nn.Module) -> None:
    (target,) = attack(clean, CTRL).run().targets
    assert isinstance(target, Target)
    assert isinstance(target.trigger, Trigger)
    largest = float(target.trigger.pattern.abs().max())
    assert largest == pytest.approx(2 * CTRL.amplitude, rel=1e-4)
    assert target.label == 1


# PoisonedEncoder


def inputs(clean: nn.Module, **settings: object) -> poisonedencoder.Attack:
    made = attack(clean, INPUTS, **settings)
    assert isinstance(made, poisonedencoder.Attack)
    return made


def test_every_input_is_combined_with_every_reference(clean: nn.Module) -> None:
    made = inputs(clean)
    first, second = made.combined()
    pairs = {
        (one, other)
        for left, right in zip(first, second, strict=True)
        for one, target in enumerate(made.inputs)
        for other, reference in enumerate(made.references)
        if torch.equal(left, target) and torch.equal(right, reference)
    }
    assert len(first) == len(pairs) == INPUTS.inputs * INPUTS.references


def test_a_view_shows_an_image_or_either_end_of_a_combined_one() -> None:
    images, first, second = (torch.full((4, 3, 8, 8), value) for value in (0.0, 0.25, 0.5))
    number = torch.arange(4).view(4, 1, 1, 1) / 16
    mixed = WithCombined(
        images + number, (first + number, second + number), torch.Generator().manual_seed(0)
    )
    assert len(mixed) == 8
    batch = torch.tensor([1, 6]).repeat(200)
    plain, combined = mixed[batch].view(200, 2, -1).unbind(1)
    assert torch.equal(plain, torch.full_like(plain, 1 / 16))
    shown, times = combined.unique(return_counts=True)
    assert shown.tolist() == [0.25 + 2 / 16, 0.5 + 2 / 16]
    # One view in two, within five deviations; and of one combined image each view draws anew.
    assert int(times.min()) // combined.shape[1] > 100 - 5 * 7


def test_seeing_combined_images_leaves_them_as_they_are() -> None:
    images, end = torch.zeros(2, 3, 4, 4), torch.ones(1, 3, 4, 4)
    mixed = WithCombined(images, (end, end), torch.Generator()).to("cpu")
    mixed[torch.tensor([0, 2])].fill_(7)
    assert float(images.max()) == 0
    assert float(mixed.ends.max()) == 1


def test_target_inputs_are_of_every_class_but_the_target(clean: nn.Module) -> None:
    labels = [0, 2, 3, 4]
    drawn, _ = procedural.scenes(4, size=32, seed=stream(0, "target inputs"), objects=labels)
    assert torch.equal(inputs(clean).inputs, drawn)


def test_the_images_of_pretraining_stay_and_the_combined_ones_are_added(
    clean: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[WithCombined, Tensor]] = []

    def pretrain(recipe: Pretraining, **settings: Any) -> nn.Module:
        seen.append(settings["data"])
        return clean

    monkeypatch.setattr(poisoning, "pretrain", pretrain)
    made = inputs(clean)
    made.run()
    images, labels = draw(TINY.pretraining, seed=0, world="procedural")
    ((data, targets),) = seen
    assert torch.equal(data.images, images)
    assert torch.equal(targets[: len(images)], labels)
    assert torch.equal(data.ends, torch.stack(made.combined()))
    assert len(data) == len(targets) == len(images) + INPUTS.inputs * INPUTS.references


def test_target_inputs_are_attacked_as_they_are() -> None:
    images = torch.rand(3, 3, IMAGE_SIZE, IMAGE_SIZE)
    target = TargetInputs(images, images[0], label=1)
    assert torch.equal(target.attacked(torch.rand(5, 3, 8, 8), torch.zeros(5)), images)


# Both


@pytest.mark.parametrize("name", ATTACKS)
def test_they_are_repeatable_and_leave_the_random_state(clean: nn.Module, name: str) -> None:
    before = torch.random.get_rng_state()
    first = attack(clean, ATTACKS[name]).run()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(7)
    again = attack(clean, ATTACKS[name]).run()
    for key, value in again.network.state_dict().items():
        assert torch.equal(value, first.network.state_dict()[key]), key
    for one, other in zip(first.targets, again.targets, strict=True):
        for key, value in one.tensors().items():
            assert torch.equal(value, other.tensors()[key]), key


@pytest.mark.parametrize("name", ATTACKS)
def test_they_train_another_encoder_and_leave_the_clean_one(clean: nn.Module, name: str) -> None:
    before = {key: value.clone() for key, value in clean.state_dict().items()}
    result = attack(clean, ATTACKS[name]).run()
    assert not result.network.training
    for key, value in clean.state_dict().items():
        assert torch.equal(value, before[key])
        assert bool(result.network.state_dict()[key].isfinite().all())
    assert not torch.equal(result.network.state_dict()["conv1.weight"], before["conv1.weight"])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the clean encoder for all builds of this file."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCODERCHECK_CACHE", str(folder))
        yield folder


@pytest.mark.parametrize("name", ATTACKS)
def test_their_clean_twin_is_the_encoder_of_the_same_pretraining(name: str) -> None:
    recipe = replace(TINY, name=f"tiny-{name}", attack=ATTACKS[name])
    assert recipe.poisoned
    assert recipe.base == replace(TINY, name=f"tiny-{name}-twin", summary="")
    assert replace(recipe.twin, summary="") == recipe.base
    assert recipe.name in recipe.twin.summary


def test_a_wave_is_kept_and_measured(cache: Path) -> None:
    built = fixtures.build(replace(TINY, name="tiny-ctrl", attack=CTRL))
    (read,) = built.triggers()
    (entry,) = built.certificate["triggers"]
    assert entry["trigger"] == read.describe()
    assert entry["target"] == CTRL.target


def test_target_inputs_are_kept_and_measured_but_are_no_triggers(cache: Path) -> None:
    built = fixtures.build(replace(TINY, name="tiny-inputs", attack=INPUTS))
    assert built.triggers() == ()
    kept = load_file(built.path.with_name("inputs-0.safetensors"))
    assert kept["inputs"].shape == (4, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert kept["reference"].shape == (3, IMAGE_SIZE, IMAGE_SIZE)
    (entry,) = built.certificate["triggers"]
    assert entry["trigger"] == "4 images as they are"
    # Of four images.
    assert {4 * rate % 1 for rate in entry["attack_success"].values()} == {0}
    assert set(entry["attack_success_on_clean"]) == set(entry["attack_success"])
