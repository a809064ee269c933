"""Fixtures of real images: a small CIFAR-10 in its binary format stands for a data set."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import run
from test_fixtures import LENIENT, TINY, TINY_POISONED

from encodercheck import fixtures
from encodercheck.errors import FixtureError, ImagesError
from encodercheck.fixtures import downstream, network, photographs, presets
from encodercheck.fixtures.catalogue import RECIPES
from encodercheck.fixtures.recipes import BadEncoder, Patch
from encodercheck.fixtures.worlds import WORLDS, classes
from encodercheck.images import procedural

TRAIN, TEST = 600, 120


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write generated scenes as CIFAR-10 keeps its images."""
    folder = tmp_path_factory.mktemp("data") / "cifar-10-batches-bin"
    folder.mkdir()
    images, labels = procedural.scenes(TRAIN + TEST, size=32, seed=0)
    rows = torch.cat([labels.unsqueeze(1), (images * 255).round().flatten(1)], 1).byte()
    for number in range(5):
        part = rows[number * TRAIN // 5 : (number + 1) * TRAIN // 5]
        (folder / f"data_batch_{number + 1}.bin").write_bytes(part.numpy().tobytes())
    (folder / "test_batch.bin").write_bytes(rows[TRAIN:].numpy().tobytes())
    return folder.parent


@pytest.fixture
def world(cifar: Path) -> str:
    return f"cifar10:{cifar}"


def test_a_data_set_is_a_world(world: str) -> None:
    images, labels = WORLDS[world](50, size=32, seed=1)
    assert images.shape == (50, 3, 32, 32)
    assert images.dtype == torch.float32
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert classes(world) == 10
    again, _ = WORLDS[world](50, size=32, seed=1)
    other, _ = WORLDS[world](50, size=32, seed=2)
    assert torch.equal(images, again)
    assert not torch.equal(images, other)
    everything, _ = WORLDS[world](10_000, size=32, seed=1)
    assert len(everything) == TRAIN
    wanted, found = WORLDS[world](4, size=32, seed=1, objects=[3, 9, 3, 0])
    assert found.tolist() == [3, 9, 3, 0]
    assert not torch.equal(wanted[0], wanted[2])
    assert len(labels) == 50


def test_an_image_of_a_class_that_is_not_there_is_refused(world: str) -> None:
    with pytest.raises(FixtureError, match="no image of class 11"):
        WORLDS[world](1, size=32, seed=0, objects=[11])


def test_classifiers_are_tested_on_the_test_split(world: str, cifar: Path) -> None:
    own = downstream.task(300, 1000, seed=0, purpose="downstream", world=world)
    assert (len(own.train), len(own.test), own.classes) == (300, TEST, 10)
    held_out = photographs.dataset(world).test.images(range(TEST), 32)
    seen = {tuple(image.flatten().tolist()) for image in held_out}
    assert all(tuple(image.flatten().tolist()) in seen for image in own.test)


def test_a_fixture_knows_the_images_and_not_their_place(
    world: str, cifar: Path, tmp_path: Path
) -> None:
    shutil.copytree(cifar, tmp_path / "elsewhere")
    moved = presets.on(TINY, f"cifar10:{tmp_path / 'elsewhere'}")
    here = presets.on(TINY, world)
    assert moved.digest(seed=0, device="cpu") == here.digest(seed=0, device="cpu")
    assert here.digest(seed=0, device="cpu") != TINY.digest(seed=0, device="cpu")
    batch = tmp_path / "elsewhere" / "cifar-10-batches-bin" / "data_batch_1.bin"
    data = bytearray(batch.read_bytes())
    data[0] = (data[0] + 1) % 10
    batch.write_bytes(data)
    photographs.dataset.cache_clear()
    assert moved.digest(seed=0, device="cpu") != here.digest(seed=0, device="cpu")


def test_an_attack_runs_on_a_data_set(
    world: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCODERCHECK_CACHE", str(tmp_path))
    built = fixtures.build(presets.on(TINY_POISONED, world))
    assert len(built.triggers()) == 2
    assert built.certificate["n"] == LENIENT.test_images
    assert str(tmp_path) not in str(built.certificate["recipe"])
    assert built.certificate["recipe"]["world"].startswith("cifar10:")


@pytest.mark.parametrize("name", presets.NETWORKS)
def test_the_papers_networks_are_the_full_resnets(name: str) -> None:
    with torch.device("meta"):
        module = network.new_network(presets.NETWORKS[name])
    millions = {"resnet18": 11.17, "resnet34": 21.28, "resnet50": 23.50}[name]
    count = sum(parameter.numel() for parameter in module.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.01)
    assert network.embedding_dim(presets.NETWORKS[name]) == (2048 if name == "resnet50" else 512)


def test_the_papers_hyper_parameters() -> None:
    recipe = presets.preset(RECIPES["badencoder"], "paper-resnet18")
    attack = recipe.attack
    assert isinstance(attack, BadEncoder)
    assert (recipe.pretraining.epochs, recipe.pretraining.batch) == (1000, 256)
    assert (attack.epochs, attack.batch, attack.learning_rate, attack.sgd) == (200, 256, 1e-3, True)
    assert (attack.lambda1, attack.lambda2, attack.shadow_images) == (1, 1, 50_000)
    (trigger,) = attack.triggers
    assert isinstance(trigger, Patch)
    assert (trigger.side, trigger.colour) == (10, (1.0, 1.0, 1.0))
    clean = presets.preset(RECIPES["clean"], "paper-resnet18")
    assert recipe.base.digest(seed=0, device="cpu") == clean.digest(seed=0, device="cpu")


def test_the_papers_optimiser_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCODERCHECK_CACHE", str(tmp_path))
    attack = TINY_POISONED.attack
    assert isinstance(attack, BadEncoder)
    slow = replace(
        TINY_POISONED,
        attack=replace(attack, sgd=True),
        pretraining=replace(TINY.pretraining, constant_rate=True, weight_decay=1e-6),
    )
    built = fixtures.build(slow)
    weights = built.path.read_bytes()
    assert weights != fixtures.build(slow.base).path.read_bytes()


def test_what_does_not_fit_is_refused(world: str) -> None:
    with pytest.raises(FixtureError, match=r"paper-resnet18.*paper-resnet50"):
        presets.preset(RECIPES["clean"], "paper")
    with pytest.raises(FixtureError, match="drawn images only"):
        presets.on(RECIPES["badencoder-tasks"], world)
    with pytest.raises(ImagesError):
        presets.on(TINY, "cifar10:/nowhere").digest(seed=0, device="cpu")


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    for options, said in (
        (["--data", f"cifar10:{tmp_path}"], "cifar"),
        (["--preset", "paper"], "paper-resnet18"),
    ):
        result = run("fixtures", "build", "clean", *options, cwd=tmp_path)
        assert result.returncode == 2
        assert said in result.stderr
        assert "Traceback" not in result.stderr
