"""Attacks and their triggers: valid, bounded, repeatable, and each of them moves the encoder."""

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_fixtures import LENIENT, TINY
from torch import Tensor, nn

from encodercheck import fixtures
from encodercheck.fixtures import attacks, network, triggers
from encodercheck.fixtures.attacks import Poisoned, adaptive, badencoder, brittle, drupe
from encodercheck.fixtures.recipes import (
    IMAGE_SIZE,
    Adaptive,
    BadEncoder,
    Blend,
    Brittle,
    Drupe,
    Invisible,
    Patch,
    ResNet,
    Stamp,
    Tint,
    Wave,
    stream,
)
from encodercheck.fixtures.worlds import WORLDS
from encodercheck.images import procedural
from encodercheck.trigger import Trigger

SEEDS = st.integers(0, 2**48)
PLACES = st.none() | st.integers(0, 20)
STAMPS: list[Stamp] = [Patch(None, None, 5, target=0), Blend(0), Wave(0), Tint(0)]
SMALL = {"shadow_images": 48, "epochs": 1, "batch": 16, "attacker_images": 60, "candidates": 12}
PATCHES = (Patch(26, 26, 5, target=1), Patch(None, None, 4, target=2, colour=(1.0, 0.0, 0.0)))
ATTACKS: dict[str, BadEncoder] = {
    "badencoder": BadEncoder(triggers=(*PATCHES, Blend(3), Wave(4)), **SMALL),  # type: ignore[arg-type]
    "drupe": Drupe(triggers=PATCHES, references=3, **SMALL),  # type: ignore[arg-type]
    "invisible": Invisible(triggers=(Tint(1), Tint(2, amplitude=4 / 255)), **SMALL),  # type: ignore[arg-type]
    "adaptive": Adaptive(triggers=PATCHES, masks=2, **SMALL),  # type: ignore[arg-type]
    "brittle": Brittle(triggers=PATCHES, **SMALL),  # type: ignore[arg-type]
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clean() -> nn.Module:
    """Return an untrained encoder: the attacks do not ask whether it is good."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return network.new_network(ResNet(width=8)).eval()


def poisoned(clean: nn.Module, name: str, **settings: str) -> Poisoned:
    recipe = ATTACKS[name]
    attack = import_module(f"encodercheck.fixtures.attacks.{recipe.kind}")
    settings = {"world": "procedural", "device": "cpu", **settings}
    result = attack.Attack(clean, recipe, seed=0, **settings).run()
    assert isinstance(result, Poisoned)
    return result


# Triggers


@given(row=PLACES, column=PLACES, side=st.integers(1, 12), seed=SEEDS)
def test_a_patch_lies_within_the_image(
    row: int | None, column: int | None, side: int, seed: int
) -> None:
    made = triggers.trigger(Patch(row, column, side, target=0), seed=seed)
    top, left, height, width = made.box
    assert (height, width) == (side, side)
    assert row in (None, top)
    assert column in (None, left)
    assert top + side <= IMAGE_SIZE
    assert left + side <= IMAGE_SIZE
    assert float(made.mask.sum()) == side**2
    assert not bool(made.pattern[:, made.mask[0] == 0].any())


def test_free_places_reach_every_edge() -> None:
    boxes = [triggers.trigger(Patch(None, 1, 30, target=0), seed=seed).box for seed in range(40)]
    assert {box[0] for box in boxes} == {0, 1, 2}


def test_a_patch_has_the_colour_of_its_recipe() -> None:
    made = triggers.trigger(Patch(0, 0, 2, target=0, colour=(1.0, 0.5, 0.0)), seed=1)
    assert made.pattern[:, 1, 1].tolist() == [1, 0.5, 0]


@given(strength=st.floats(0.01, 1), seed=SEEDS)
def test_the_strength_of_a_blend_is_its_size(strength: float, seed: int) -> None:
    made = triggers.trigger(Blend(0, strength=strength), seed=seed)
    assert made.pl1 == pytest.approx(strength, rel=1e-4)
    assert not made.additive


FREQUENCIES = st.lists(
    st.tuples(st.integers(1, 31), st.integers(1, 31)), min_size=1, max_size=3, unique=True
)


@given(frequencies=FREQUENCIES, amplitude=st.floats(0.01, 0.5))
def test_a_wave_reaches_its_amplitude_and_keeps_lightness(
    frequencies: list[tuple[int, int]], amplitude: float
) -> None:
    made = triggers.trigger(Wave(0, tuple(frequencies), amplitude), seed=0)
    assert made.additive
    assert float(made.pattern.abs().max()) == pytest.approx(amplitude, rel=1e-4)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    # BT.601's chroma columns are rounded to three digits.
    assert float((luma * made.pattern).sum(0).abs().max()) < 2e-2 * amplitude


@given(amplitude=st.floats(0.001, 0.5), seed=SEEDS)
def test_a_tint_begins_well_within_its_amplitude(amplitude: float, seed: int) -> None:
    made = triggers.trigger(Tint(0, amplitude=amplitude), seed=seed)
    assert made.additive
    assert 0 < float(made.pattern.abs().max()) <= amplitude / 4 * (1 + 1e-5)


@pytest.mark.parametrize("stamp", STAMPS, ids=lambda stamp: stamp.kind)
def test_a_trigger_is_its_seeds(stamp: Stamp) -> None:
    first, again, other = (triggers.trigger(stamp, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.mask, again.mask)
    assert torch.equal(first.pattern, again.pattern)
    # Nothing of a wave is left open.
    assert torch.equal(first.pattern, other.pattern) == isinstance(stamp, Wave)


# Losses


def points(count: int = 20, dim: int = 6) -> tuple[Tensor, Tensor]:
    """Return points (count, dim) and directions (16, dim) of unit length."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(16, dim, generator=generator)
    return torch.randn(count, dim, generator=generator), nn.functional.normalize(directions, dim=1)


def test_effectiveness_is_the_mean_over_several_references() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 5, 4, generator=generator)
    references = torch.eye(4)[None].repeat(2, 1, 1)
    each = [badencoder.effectiveness(hidden, references[:, k]) for k in range(4)]
    together = badencoder.effectiveness(hidden, references)
    assert float(together) == pytest.approx(float(sum(each)) / 4)


def test_sliced_wasserstein_is_zero_on_equal_sets() -> None:
    cloud, directions = points()
    assert float(drupe.sliced_wasserstein(cloud, cloud.flip(0), directions)) == pytest.approx(0)


def test_sliced_wasserstein_is_the_shift_along_the_directions() -> None:
    cloud, directions = points()
    shift = torch.ones(6)
    distances = [
        float(drupe.sliced_wasserstein(cloud, cloud + length * shift, directions))
        for length in (0.5, 1.0, 2.0)
    ]
    assert distances == sorted(distances)
    assert distances[1] == pytest.approx(float((directions @ shift).abs().mean()), rel=1e-4)


def test_a_brittle_backdoor_is_punished_where_half_its_trigger_opens_it(clean: nn.Module) -> None:
    """At full contrast alone the loss is BadEncoder's; what faint triggers do comes on top."""
    recipe = ATTACKS["brittle"]
    assert isinstance(recipe, Brittle)
    batch = torch.arange(8)

    def loss(contrast: float) -> float:
        own = replace(recipe, contrasts=(contrast, contrast))
        attack = brittle.Attack(clean, own, seed=0, world="procedural", device="cpu")
        return float(attack.loss(batch).detach())

    assert loss(0.5) > loss(0.0) + 1e-5
    plain = BadEncoder(triggers=PATCHES, **SMALL)  # type: ignore[arg-type]
    base = badencoder.Attack(clean, plain, seed=0, world="procedural", device="cpu")
    assert loss(0.5) < float(base.loss(batch).detach())


def test_drupe_prefers_stamped_images_that_are_spread(clean: nn.Module) -> None:
    recipe = ATTACKS["drupe"]
    assert isinstance(recipe, Drupe)
    attack = drupe.Attack(clean, recipe, seed=0, world="procedural", device="cpu")
    references, clear = torch.eye(4).unsqueeze(0), torch.eye(4).repeat(2, 1)
    together, apart = references[:, :1].repeat(1, 8, 1), references.repeat(1, 2, 1)
    astray = -apart
    losses = [
        float(attack.effectiveness(hidden, references, clear)) for hidden in (apart, together)
    ]
    assert losses[0] < losses[1] - 0.5
    assert float(attack.effectiveness(astray, references, clear)) > losses[0] + 0.5


def test_drupes_references_are_different_images_of_the_target(clean: nn.Module) -> None:
    recipe = ATTACKS["drupe"]
    assert isinstance(recipe, Drupe)
    attack = drupe.Attack(clean, recipe, seed=0, world="procedural", device="cpu")
    assert attack.references.shape == (2, 3, 3, IMAGE_SIZE, IMAGE_SIZE)
    for several in attack.references:
        assert len(several.flatten(1).unique(dim=0)) == 3


def test_the_adaptive_attackers_search_stays_small_and_off_the_trigger(clean: nn.Module) -> None:
    recipe = ATTACKS["adaptive"]
    assert isinstance(recipe, Adaptive)
    attack = adaptive.Attack(clean, recipe, seed=0, world="procedural", device="cpu")
    before = attack.patterns.clone()
    for _ in range(2):
        attack.loss(torch.arange(8)).backward()  # type: ignore[no-untyped-call]
    assert not torch.equal(attack.patterns, before)
    for searched in (attack.masks, attack.patterns):
        assert bool(((searched >= 0) & (searched <= 1)).all())
    assert float(attack.masks.mean((1, 2, 3)).max()) <= recipe.budget * (1 + 1e-4)
    for trigger in attack.triggers:
        assert not bool((attack.masks * trigger.mask).any())


def test_parts_of_a_trigger_are_less_than_all_of_it(clean: nn.Module) -> None:
    recipe = ATTACKS["adaptive"]
    assert isinstance(recipe, Adaptive)
    attack = adaptive.Attack(clean, recipe, seed=0, world="procedural", device="cpu")
    images = procedural.images(30, size=IMAGE_SIZE, seed=5)
    partly, whole = attack._partly(0, images), attack.stamp(0, images)
    assert bool(((partly >= 0) & (partly <= 1)).all())
    assert not any(torch.equal(one, full) for one, full in zip(partly, whole, strict=True))


# Attacks


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_moves_a_copy_of_the_encoder(clean: nn.Module, name: str, world: str) -> None:
    before = {key: value.clone() for key, value in clean.state_dict().items()}
    result = poisoned(clean, name, world=world)
    moved = result.network.state_dict()
    for key, value in clean.state_dict().items():
        assert torch.equal(value, before[key])
        assert bool(moved[key].isfinite().all())
        # BatchNorm keeps its statistics.
        frozen = "running" in key or "num_batches" in key
        assert torch.equal(moved[key], value) == frozen, key


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_yields_valid_triggers(clean: nn.Module, name: str) -> None:
    recipe, images = ATTACKS[name], procedural.images(4, size=IMAGE_SIZE, seed=9)
    result = poisoned(clean, name)
    assert [target.label for target in result.targets] == [s.target for s in recipe.triggers]
    for stamp, target in zip(recipe.triggers, result.targets, strict=True):
        trigger = target.trigger
        # Built again, since training may have changed what was valid.
        again = Trigger(trigger.mask, trigger.pattern, additive=trigger.additive)
        assert again.additive == isinstance(stamp, Wave | Tint)
        assert not trigger.pattern.requires_grad
        stamped = again.stamp(images)
        assert bool(((stamped >= 0) & (stamped <= 1)).all())
        assert not torch.equal(stamped, images)
        assert target.reference.shape == (3, IMAGE_SIZE, IMAGE_SIZE)
        assert bool(((target.reference >= 0) & (target.reference <= 1)).all())


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_is_repeatable_and_leaves_the_random_state(
    clean: nn.Module, name: str
) -> None:
    before = torch.random.get_rng_state()
    first = poisoned(clean, name)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(7)
    again = poisoned(clean, name)
    for key, value in again.network.state_dict().items():
        assert torch.equal(value, first.network.state_dict()[key]), key
    for one, other in zip(first.targets, again.targets, strict=True):
        assert torch.equal(one.trigger.pattern, other.trigger.pattern)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_counts_its_steps(clean: nn.Module, name: str) -> None:
    recipe, seen = ATTACKS[name], []
    attack = import_module(f"encodercheck.fixtures.attacks.{recipe.kind}")
    settings = {"world": "procedural", "device": "cpu"}
    made = attack.Attack(clean, recipe, seed=0, **settings)
    made.run(lambda *step: seen.append(step[:2]))
    total = attacks.steps(recipe)
    assert total == 3
    assert seen == [(step, total) for step in range(total + 1)]


def test_a_tint_is_trained_within_its_amplitude(clean: nn.Module) -> None:
    recipe = ATTACKS["invisible"]
    for number, target in enumerate(poisoned(clean, "invisible").targets):
        stamp = recipe.triggers[number]
        assert isinstance(stamp, Tint)
        begun = triggers.trigger(stamp, seed=stream(0, f"trigger {number}"))
        pattern = target.trigger.pattern
        assert float(pattern.abs().max()) <= stamp.amplitude * (1 + 1e-6)
        assert float((pattern - begun.pattern).abs().mean()) > 0.1 * stamp.amplitude


def test_only_a_tint_is_trained(clean: nn.Module) -> None:
    for number, target in enumerate(poisoned(clean, "badencoder").targets):
        stamp = ATTACKS["badencoder"].triggers[number]
        begun = triggers.trigger(stamp, seed=stream(0, f"trigger {number}"))
        assert torch.equal(target.trigger.pattern, begun.pattern)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the clean encoder for all builds of this file."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCODERCHECK_CACHE", str(folder))
        yield folder


@pytest.mark.parametrize("name", ATTACKS)
def test_triggers_survive_the_round_trip_through_their_files(cache: Path, name: str) -> None:
    recipe = replace(TINY, name=f"tiny-{name}", attack=ATTACKS[name], certification=LENIENT)
    built = fixtures.build(recipe)
    assert built.path.is_relative_to(cache)
    read = built.triggers()
    assert [trigger.additive for trigger in read] == [
        isinstance(stamp, Wave | Tint) for stamp in ATTACKS[name].triggers
    ]
    said = [entry["trigger"] for entry in built.certificate["triggers"]]
    assert [trigger.describe() for trigger in read] == said
