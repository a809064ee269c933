"""Kinds of pre-training: formulas against oracles; each repeatable, and leaving nothing behind."""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from encodercheck.errors import ConfigError
from encodercheck.fixtures import fitting, network
from encodercheck.fixtures.pretraining import byol, draw, mae, moco, pretrain, steps
from encodercheck.fixtures.recipes import (
    Byol,
    Mae,
    MoCo,
    Pretraining,
    ResNet,
    Supervised,
    Untrained,
    ViT,
    stream,
)

SMALL = ResNet(width=8)
TRANSFORMER = ViT(width=16, depth=1, heads=2, patch=8)
QUICK = {"images": 64, "epochs": 2, "batch": 32, "projection": 8}
RECIPES = {
    "simclr": Pretraining(SMALL, **QUICK),
    "simclr, vit": Pretraining(TRANSFORMER, **QUICK),
    "simclr, no head": Pretraining(SMALL, **{**QUICK, "projection": 0}),
    "moco": MoCo(SMALL, queue=48, **QUICK),
    "byol": Byol(SMALL, **QUICK),
    "mae": Mae(TRANSFORMER, decoder_width=16, **QUICK),
    "supervised": Supervised(SMALL, **QUICK),
    "untrained": Untrained(SMALL),
}
TRAINED = [name for name in RECIPES if name != "untrained"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Pretraining:
    """Return every kind's recipe in turn."""
    own = RECIPES[request.param]
    if isinstance(own.network, ViT):
        pytest.importorskip("timm")
    return own


class Watch(list[tuple[int, int]]):
    """A progress that remembers what it was told."""

    def __call__(self, step: int, total: int, note: str = "") -> None:
        self.append((step, total))


def same(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Every kind


def test_a_network_is_decided_by_its_seed_and_nothing_else(recipe: Pretraining) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = pretrain(recipe, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(first, pretrain(recipe, seed=0))
    assert not same(first, pretrain(recipe, seed=1))


def test_a_network_is_finite_and_evaluates_and_has_no_head(recipe: Pretraining) -> None:
    trained = pretrain(recipe, seed=0)
    assert not any(part.training for part in trained.modules())
    assert trained.state_dict().keys() == network.new_network(recipe.network).state_dict().keys()
    embeddings = network.as_encoder(trained, "cpu")(torch.rand(2, 3, 32, 32))
    assert embeddings.shape == (2, network.embedding_dim(recipe.network))
    assert bool(embeddings.isfinite().all())


def test_progress_counts_to_the_total(recipe: Pretraining) -> None:
    watch = Watch()
    pretrain(recipe, seed=0, progress=watch)
    total = steps(recipe)
    assert watch == [(step, total) for step in range(total + 1)]


@pytest.mark.parametrize("name", TRAINED)
def test_training_moves_the_first_weights(name: str) -> None:
    own = RECIPES[name]
    if isinstance(own.network, ViT):
        pytest.importorskip("timm")
    begun, _ = fitting.begin(own, nn.Identity, seed=0, device="cpu")
    first = next(iter(dict(begun.named_parameters()).items()))
    assert not torch.equal(first[1], dict(pretrain(own, seed=0).named_parameters())[first[0]])


@pytest.mark.parametrize("name", TRAINED)
def test_only_supervised_training_looks_at_labels(name: str) -> None:
    own = RECIPES[name]
    if isinstance(own.network, ViT):
        pytest.importorskip("timm")
    images, labels = draw(own, seed=0, world="procedural")
    first, second = (
        pretrain(own, seed=0, data=(images, given)) for given in (labels, labels.flip(0))
    )
    assert same(first, second) == (name != "supervised")


def test_the_untrained_is_a_new_network() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(3, "weights"))
        new = network.new_network(SMALL)
    assert same(pretrain(Untrained(SMALL), seed=3), new)


def test_every_kind_is_another_fixture_though_its_numbers_are_the_same() -> None:
    from encodercheck.fixtures.recipes import Recipe

    kinds = [Pretraining, MoCo, Byol, Mae, Supervised, Untrained]
    recipes = [Recipe("one", "", pretraining=kind(SMALL, **QUICK)) for kind in kinds]
    assert len({one.digest(seed=0, device="cpu") for one in recipes}) == len(kinds)


# MoCo


def test_info_nce_is_equation_1() -> None:
    queries, keys, queue = random(3, 4), random(3, 4, seed=1), random(5, 4, seed=2)
    losses = []
    for query, key in zip(queries, keys, strict=True):
        own, *others = (
            math.exp(float(torch.cosine_similarity(query, other, dim=0)) / 0.2)
            for other in (key, *queue)
        )
        losses.append(-math.log(own / (own + sum(others))))
    found = float(moco.info_nce(queries, keys, queue, 0.2))
    assert found == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_the_follower_follows_by_equation_2() -> None:
    follower, leader = nn.Linear(2, 1), nn.Linear(2, 1)
    before = copy.deepcopy(follower)
    moco.follow(follower, leader, 0.9)
    for now, old, other in zip(
        follower.parameters(), before.parameters(), leader.parameters(), strict=True
    ):
        assert torch.allclose(now, 0.9 * old + 0.1 * other)


def test_the_queue_drops_what_came_first() -> None:
    queue = torch.tensor([[1.0], [2.0], [3.0]])
    queue = moco.enqueue(queue, torch.tensor([[4.0], [5.0]]))
    assert queue.flatten().tolist() == [4, 5, 1]
    assert moco.enqueue(queue, torch.arange(6.0).view(6, 1)).flatten().tolist() == [0, 1, 2]


def test_the_follower_is_not_trained_and_the_queue_fills() -> None:
    leader = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8))
    contrast = moco._Contrast(
        replace(RECIPES["moco"], momentum=1.0),  # type: ignore[arg-type]
        leader,
        torch.rand(4, 3, 32, 32),
        seed=0,
    )
    before = contrast.queue
    contrast.loss(torch.arange(4)).backward()  # type: ignore[no-untyped-call]
    assert torch.equal(contrast.queue[4:], before[:-4])
    assert not contrast.queue.requires_grad
    assert all(p.grad is None for p in contrast.follower.parameters())
    assert all(p.grad is not None for p in leader.parameters())


# BYOL


def test_regression_is_equation_2() -> None:
    first, second = random(4, 3), random(4, 3, seed=1)
    units = (nn.functional.normalize(z, dim=1) for z in (first, second))
    expected = float((next(units) - next(units)).square().sum(1).mean())
    assert float(byol.regression(first, second)) == pytest.approx(expected, rel=1e-5)


def test_momentum_rises_to_one() -> None:
    found = [byol.momentum(0.9, step, 10) for step in range(11)]
    assert found == sorted(found)
    assert (found[0], found[5], found[10]) == pytest.approx((0.9, 0.95, 1.0))


# The masked autoencoder


@pytest.mark.parametrize(("masked", "expected"), [(0.75, 4), (0.5, 8), (0.0, 16), (0.99, 1)])
def test_the_share_that_is_said_is_masked(masked: float, expected: int) -> None:
    seen = mae.visible(50, 16, masked, torch.Generator().manual_seed(0))
    assert seen.shape == (50, expected)
    assert all(len(set(row)) == expected for row in seen.tolist())
    assert set(seen.flatten().tolist()) == set(range(16))


def test_patches_are_cut_row_by_row() -> None:
    images = random(2, 3, 8, 8)
    cut = mae.patches(images, 4)
    assert cut.shape == (2, 4, 48)
    assert torch.equal(cut[:, 1].view(2, 3, 4, 4), images[:, :, :4, 4:])


def test_the_error_is_of_masked_patches_only() -> None:
    wanted, drawn = random(2, 4, 6), random(2, 4, 6, seed=1)
    seen = torch.tensor([[0, 2], [3, 1]])
    hidden = [(0, 1), (0, 3), (1, 0), (1, 2)]
    each = [
        (drawn[i, j] - (wanted[i, j] - wanted[i, j].mean()) / wanted[i, j].std()).square().mean()
        for i, j in hidden
    ]
    found = mae.error(drawn, wanted, seen)
    assert float(found) == pytest.approx(float(sum(each)) / 4, rel=1e-4)
    drawn[0, 0] = drawn[1, 3] = 100.0
    assert torch.equal(mae.error(drawn, wanted, seen), found)


def test_the_encoder_sees_no_masked_patch() -> None:
    pytest.importorskip("timm")
    vit = network.new_network(TRANSFORMER).eval()
    images, seen = random(1, 3, 32, 32), torch.tensor([[0, 5]])
    found = mae.encode(vit, images, seen)
    assert found.shape == (1, 3, 16)
    images[:, :, 16:] = 0
    assert torch.equal(mae.encode(vit, images, seen), found)
    images[:, :, :8, :8] = 0
    assert not torch.equal(mae.encode(vit, images, seen), found)


def test_an_encoder_that_sees_everything_is_the_transformer_itself() -> None:
    pytest.importorskip("timm")
    vit = network.new_network(TRANSFORMER).eval()
    images = random(2, 3, 32, 32)
    tokens = mae.encode(vit, images, torch.arange(16).expand(2, -1))
    assert torch.allclose(tokens[:, 0], vit(images), atol=1e-5)


def test_the_decoder_puts_what_was_seen_in_its_place() -> None:
    torch.manual_seed(0)
    decoder = mae.Decoder(16, 8, count=4, pixels=5).eval()
    decoder.block = nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        decoder.positions.zero_()
    tokens, seen = random(1, 3, 16), torch.tensor([[2, 0]])
    drawn = decoder(tokens, seen)
    assert drawn.shape == (1, 4, 5)
    assert torch.allclose(drawn[:, 2], decoder.draw(decoder.embed(tokens[:, 1])))
    assert torch.allclose(drawn[:, 0], decoder.draw(decoder.embed(tokens[:, 2])))
    assert torch.allclose(drawn[:, 1], decoder.draw(decoder.mask).expand(1, 5))


def test_a_masked_autoencoder_needs_a_transformer() -> None:
    with pytest.raises(ConfigError, match="ViT"):
        pretrain(Mae(SMALL, **QUICK), seed=0)
