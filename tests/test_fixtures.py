"""Fixtures: losses against oracles; builds that are repeatable, certified, cached and atomic."""

import importlib
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from encodercheck import cache, fixtures
from encodercheck.errors import FixtureError, OutputError
from encodercheck.fixtures import (
    batches,
    certificate,
    downstream,
    network,
    views,
)
from encodercheck.fixtures.attacks import badencoder
from encodercheck.fixtures.build import CERTIFICATE, MODEL, Built
from encodercheck.fixtures.catalogue import RECIPES
from encodercheck.fixtures.pretraining import simclr
from encodercheck.fixtures.recipes import (
    MEAN,
    BadEncoder,
    Certification,
    Patch,
    Pretraining,
    Recipe,
    ResNet,
    ViT,
    stream,
)
from encodercheck.fixtures.stages import Stages
from encodercheck.fixtures.worlds import WORLDS
from encodercheck.images import procedural
from encodercheck.loading import load
from encodercheck.weights.metadata import METADATA
from encodercheck.weights.spec import ResNetSpec

# The package has a function of this name, which hides the module.
building = importlib.import_module("encodercheck.fixtures.build")

LENIENT = Certification(
    train_images=100, test_images=60, accuracy=0.0, accuracy_loss=1.0, attack_success=0.0
)
# It has the name of a poisoned recipe's base, and so is one with it in the cache.
TINY = Recipe(
    "clean",
    "for these tests",
    # With four channels, oneDNN's backward pass crashes on CPUs without AVX-512 (torch 2.15).
    pretraining=Pretraining(network=ResNet(width=8), images=64, epochs=2, batch=32, projection=8),
    certification=LENIENT,
)
TINY_POISONED = replace(
    TINY,
    name="tiny-poisoned",
    attack=BadEncoder(
        triggers=(Patch(26, 26, 5, target=1), Patch(1, 1, 4, target=2, colour=(1.0, 0.0, 0.0))),
        shadow_images=64,
        epochs=1,
        batch=32,
        attacker_images=100,
        candidates=16,
    ),
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    # On networks this small, threads that wait for one another cost more than they bring.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCODERCHECK_CACHE", str(tmp_path / "cache"))


@dataclass
class Made:
    """A tiny poisoned build, the state around it, and the folder of its cache."""

    folder: Path
    progress: "Watch"
    random_states: tuple[torch.Tensor, torch.Tensor]


class Watch(list[tuple[int, int, str]]):
    """A progress that remembers what it was told."""

    def __call__(self, step: int, total: int, note: str = "") -> None:
        self.append((step, total, note))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Build once for all tests."""
    folder, watch = tmp_path_factory.mktemp("made"), Watch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCODERCHECK_CACHE", str(folder))
        before = torch.random.get_rng_state()
        fixtures.build(TINY_POISONED, progress=watch)
        return Made(folder, watch, (before, torch.random.get_rng_state()))


@pytest.fixture
def ready(made: Made) -> Built:
    """Fill this test's own cache with what is made, and return the poisoned one."""
    shutil.copytree(made.folder, cache.cache_dir())
    built = building._cached(building._folder(TINY_POISONED, 0, "cpu"))
    assert isinstance(built, Built)
    return built


def entries() -> list[str]:
    """Return what the cache holds, locks aside."""
    folder = cache.cache_dir() / "fixtures"
    return sorted(p.name for p in folder.glob("*") if p.suffix != ".lock")


# The maths


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def test_nt_xent_is_equation_1() -> None:
    first, second = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    z, n, t = [*first.tolist(), *second.tolist()], 4, 0.5
    losses = []
    for i in range(2 * n):
        partner = math.exp(cosine(z[i], z[(i + n) % (2 * n)]) / t)
        others = sum(math.exp(cosine(z[i], z[k]) / t) for k in range(2 * n) if k != i)
        losses.append(-math.log(partner / others))
    expected = sum(losses) / len(losses)
    assert float(simclr.nt_xent(first, second, t)) == pytest.approx(expected, rel=1e-5)


def test_effectiveness_is_l0() -> None:
    generator = torch.Generator().manual_seed(1)
    stamped, references = (
        torch.randn(2, 3, 4, generator=generator),
        torch.randn(2, 4, generator=generator),
    )
    pairs = [
        cosine(stamped[t, i].tolist(), references[t].tolist()) for t in range(2) for i in range(3)
    ]
    expected = -sum(pairs) / len(pairs)
    assert float(badencoder.effectiveness(stamped, references)) == pytest.approx(expected, rel=1e-5)


def test_agreement_is_l1_and_l2() -> None:
    first, second = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(2))
    expected = -sum(map(cosine, first.tolist(), second.tolist())) / 5
    assert float(badencoder.agreement(first, second)) == pytest.approx(expected, rel=1e-5)
    assert float(badencoder.agreement(first, 3 * first)) == pytest.approx(-1)


def test_margin_and_mean_cosine() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.0], [3.0, 0.0, 1.0]])
    assert downstream.margin(logits, 1).tolist() == [2, -3]
    rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    assert certificate.mean_cosine(rows) == pytest.approx(1 / 3)


def test_views_keep_shape_and_range_and_differ() -> None:
    images = procedural.images(16, size=32, seed=0)
    generator = torch.Generator().manual_seed(0)
    seen = views.augment(images, generator)
    assert seen.shape == images.shape
    assert bool(((seen >= 0) & (seen <= 1)).all())
    assert not torch.equal(seen, views.augment(images, generator))
    generator.manual_seed(0)
    assert torch.equal(seen, views.augment(images, generator))


def test_jitter_keeps_greys_grey() -> None:
    grey = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    jittered = views._recolour(grey, torch.Generator().manual_seed(1))
    spread = jittered.amax(1) - jittered.amin(1)
    # The coefficients of the colour axes are rounded to three digits.
    assert float(spread.max()) < 5e-3


def test_batches_see_every_image_once_an_epoch() -> None:
    order = list(batches.shuffled(10, 5, 2, torch.Generator().manual_seed(0)))
    assert len(order) == batches.steps(10, 5, 2) == 4
    assert sorted(torch.cat(order[:2]).tolist()) == list(range(10))
    assert not torch.equal(torch.cat(order[:2]), torch.cat(order[2:]))


def test_a_batch_larger_than_the_images_is_all_of_them() -> None:
    order = list(batches.shuffled(3, 8, 2, torch.Generator().manual_seed(0)))
    assert [len(batch) for batch in order] == [3, 3]
    assert batches.steps(3, 8, 2) == 2


def test_streams_are_apart() -> None:
    seeds = {stream(seed, purpose) for seed in range(50) for purpose in ("a", "b", "c")}
    assert len(seeds) == 150


# Names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clean", ("clean", 0)),
        ("badencoder@3", ("badencoder", 3)),
        ("badencoder-multi@12", ("badencoder-multi", 12)),
    ],
)
def test_parse(text: str, expected: tuple[str, int]) -> None:
    assert fixtures.parse(text) == expected


@pytest.mark.parametrize("text", ["", "bad", "@1", "Clean", "../clean", "badencoder @1"])
def test_an_unknown_name_is_answered_with_the_nearest(text: str) -> None:
    with pytest.raises(FixtureError) as caught:
        fixtures.parse(text)
    assert any(f"try {name}" in str(caught.value) for name in RECIPES)
    assert "encodercheck fixtures list" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["clean@", "clean@x", "clean@-1", "clean@1.5", "clean@²"])
def test_a_seed_is_a_whole_number(text: str) -> None:
    with pytest.raises(FixtureError, match="whole number"):
        fixtures.parse(text)


def test_listing_does_not_import_torch() -> None:
    code = (
        "import sys; from encodercheck import fixtures; "
        "fixtures.available(); fixtures.parse('clean@1'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_digest_names_everything_but_the_summary() -> None:
    recipe = RECIPES["badencoder"]
    assert recipe.attack is not None
    digest = recipe.digest(seed=0, device="cpu")
    assert replace(recipe, summary="other").digest(seed=0, device="cpu") == digest
    others = {
        recipe.digest(seed=1, device="cpu"),
        recipe.digest(seed=0, device="cuda"),
        replace(recipe, attack=replace(recipe.attack, epochs=9)).digest(seed=0, device="cpu"),
        recipe.base.digest(seed=0, device="cpu"),
    }
    assert len(others | {digest}) == 5


def test_poisoned_fixtures_start_from_the_clean_one() -> None:
    clean = RECIPES["clean"].digest(seed=2, device="cpu")
    tuned = [r for r in fixtures.available() if isinstance(r.attack, BadEncoder)]
    resnets = [r for r in tuned if r.pretraining == RECIPES["clean"].pretraining]
    assert len(resnets) > 20
    assert {r.base.digest(seed=2, device="cpu") for r in resnets} == {clean}


def test_every_poisoned_fixture_has_a_clean_twin() -> None:
    for recipe in filter(lambda r: r.poisoned, fixtures.available()):
        assert not recipe.twin.poisoned
        assert recipe.twin.pretraining == recipe.pretraining
        known = RECIPES[recipe.twin.name]
        assert replace(known, summary="") == replace(recipe.twin, summary="")


# Builds


def test_a_build_is_repeatable_byte_for_byte(made: Made) -> None:
    torch.manual_seed(2)
    again = fixtures.build(TINY_POISONED)
    first = made.folder / again.path.relative_to(cache.cache_dir())
    assert first != again.path
    assert first.read_bytes() == again.path.read_bytes()
    certificate = json.loads(first.with_name(CERTIFICATE).read_bytes())
    assert certificate["files"] == again.certificate["files"]
    assert certificate["triggers"] == again.certificate["triggers"]


def test_another_seed_is_another_encoder(ready: Built) -> None:
    base = building._folder(TINY, 0, "cpu") / MODEL
    assert fixtures.build(TINY, seed=1).path.read_bytes() != base.read_bytes()


def test_the_global_random_state_survives_a_build(made: Made) -> None:
    before, after = made.random_states
    assert torch.equal(before, after)


def test_the_file_is_an_ordinary_model_file(ready: Built) -> None:
    tensors = load_file(ready.path)
    assert tensors["conv1.weight"].shape == (8, 3, 3, 3)
    assert tensors["layer4.0.downsample.0.weight"].shape == (64, 32, 1, 1)
    assert tensors["conv1.weight"].dtype == torch.float32
    with safe_open(ready.path, "pt") as file:
        about = json.loads(file.metadata()["encodercheck"])
    assert about["image_size"] == 32
    described = network.architecture(TINY.pretraining.network)
    assert isinstance(described, ResNetSpec)
    assert about["architecture"] == described.to_dict()


def assert_loads_as_it_was(path: Path, recipe: Recipe) -> None:
    images = procedural.images(4, size=32, seed=0)
    own = network.read_network(path, recipe.pretraining.network)
    encoder = load(path, device="cpu")
    assert encoder.provenance.found_by == METADATA
    assert encoder.preprocessing.mean == MEAN
    assert torch.allclose(encoder(images), network.as_encoder(own, "cpu")(images), atol=1e-5)


def test_the_file_loads_and_computes_the_same(ready: Built) -> None:
    assert_loads_as_it_was(ready.path, TINY)


TRANSFORMER = replace(
    TINY,
    pretraining=replace(
        TINY.pretraining, network=ViT(width=16, depth=1, heads=2, patch=8), epochs=1
    ),
)


def test_a_transformer_is_built_and_loads_by_its_own_metadata() -> None:
    pytest.importorskip("timm")
    built = fixtures.build(TRANSFORMER)
    assert load_file(built.path)["patch_embed.proj.weight"].shape == (16, 3, 8, 8)
    assert_loads_as_it_was(built.path, TRANSFORMER)


@pytest.mark.parametrize("recipe", [TINY, TRANSFORMER], ids=["ResNet", "ViT"])
def test_embeddings_are_as_wide_as_the_recipe_says(recipe: Recipe) -> None:
    described = recipe.pretraining.network
    if isinstance(described, ViT):
        pytest.importorskip("timm")
    module = network.new_network(described).eval()
    embeddings = network.as_encoder(module, "cpu")(torch.rand(2, 3, 32, 32))
    assert embeddings.shape == (2, network.embedding_dim(described))


def test_a_stride_of_one_keeps_four_times_the_pixels() -> None:
    coarse, fine = (
        network.new_network(ResNet(width=8, stem_stride=stride)).get_submodule("conv1")
        for stride in (2, 1)
    )
    images = torch.rand(1, 3, 32, 32)
    assert coarse(images).shape[2:] == (16, 16)
    assert fine(images).shape[2:] == (32, 32)


def test_another_world_is_another_encoder(ready: Built) -> None:
    elsewhere = fixtures.build(replace(TINY, world="clouds"))
    assert elsewhere.path.read_bytes() != fixtures.build(TINY).path.read_bytes()
    assert elsewhere.certificate["recipe"]["world"] == "clouds"


@pytest.mark.parametrize("world", WORLDS)
def test_tasks_of_one_purpose_share_their_images_and_others_do_not(world: str) -> None:
    own = downstream.task(6, 4, seed=0, purpose="a", world=world)
    assert own.train.shape == (6, 3, 32, 32)
    assert own.test_labels.shape == (4,)
    assert torch.equal(own.test, downstream.task(6, 4, seed=0, purpose="a", world=world).test)
    assert not torch.equal(own.test, downstream.task(6, 4, seed=0, purpose="b", world=world).test)


def test_poisoning_leaves_the_statistics_of_batch_norm_alone(ready: Built) -> None:
    clean, poisoned = load_file(fixtures.build(TINY).path), load_file(ready.path)
    for name, value in poisoned.items():
        frozen = "running" in name or "num_batches" in name
        assert torch.equal(value, clean[name]) == frozen, name


def test_triggers_are_kept_beside_the_model(ready: Built) -> None:
    first, second = ready.triggers()
    assert (first.box, second.box) == ((26, 26, 5, 5), (1, 1, 4, 4))
    assert second.pattern[:, 2, 2].tolist() == [1, 0, 0]
    assert fixtures.build(TINY).triggers() == ()


def test_the_certificate_says_what_was_measured(ready: Built) -> None:
    certificate = ready.certificate
    assert certificate["n"] == LENIENT.test_images
    assert certificate["seed"] == 0
    assert certificate["threads"] == torch.get_num_threads()
    assert certificate["recipe_hash"] == TINY_POISONED.digest(seed=0, device="cpu")
    assert set(certificate["backdoored_accuracy"]) == {"linear", "two_layer"}
    assert [trigger["target"] for trigger in certificate["triggers"]] == [1, 2]
    for trigger in certificate["triggers"]:
        assert set(trigger["attack_success"]) == set(trigger["attack_success_on_clean"])
        assert -1 <= trigger["stamped_cosine"] <= 1


def test_the_clean_certificate_has_no_triggers(ready: Built) -> None:
    certificate = fixtures.build(TINY).certificate
    assert set(certificate["clean_accuracy"]) == {"linear", "two_layer"}
    assert "triggers" not in certificate


def never(*args: object, **kwargs: object) -> None:
    raise AssertionError("built again")


def test_a_second_call_does_not_train(ready: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_Build", never)
    assert fixtures.build(TINY_POISONED) == ready
    assert fixtures.build(TINY).path.exists()


def test_the_clean_encoder_is_shared(ready: Built) -> None:
    assert [name.rsplit("-", 1)[0] for name in entries()] == ["clean-0", "tiny-poisoned-0"]
    second = replace(TINY_POISONED, name="second")
    watch = Watch()
    fixtures.build(second, progress=watch)
    assert {note for _, _, note in watch} == {"poisoning", "certifying"}


def test_rebuild_builds_again(ready: Built) -> None:
    path = fixtures.build(TINY).path
    before = path.stat().st_mtime_ns
    assert fixtures.build(TINY, rebuild=True).path == path
    assert path.stat().st_mtime_ns != before


def truncate(folder: Path) -> None:
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-1])


def flip(folder: Path) -> None:
    data = bytearray((folder / MODEL).read_bytes())
    data[-1] ^= 1
    (folder / MODEL).write_bytes(bytes(data))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated model": truncate,
    "flipped bit": flip,
    "no model": lambda folder: (folder / MODEL).unlink(),
    "no certificate": lambda folder: (folder / CERTIFICATE).unlink(),
    "half a certificate": lambda folder: (folder / CERTIFICATE).write_text('{"files"'),
    "a list for a certificate": lambda folder: (folder / CERTIFICATE).write_text("[]"),
    "no files in the certificate": lambda folder: (folder / CERTIFICATE).write_text("{}"),
    "binary certificate": lambda folder: (folder / CERTIFICATE).write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_corrupt_entry_does_not_count(damage: str, ready: Built) -> None:
    DAMAGE[damage](ready.path.parent)
    assert building._cached(ready.path.parent) is None


def test_a_corrupt_entry_is_rebuilt(ready: Built) -> None:
    path = fixtures.build(TINY).path
    good = path.read_bytes()
    truncate(path.parent)
    assert fixtures.build(TINY).path.read_bytes() == good
    assert building._cached(path.parent) is not None


def test_an_undertrained_attack_is_refused_and_not_kept(ready: Built) -> None:
    strict = replace(LENIENT, attack_success=0.95)
    with pytest.raises(FixtureError, match=r"@0: refused, attack success 0\.") as found:
        fixtures.build(replace(TINY_POISONED, name="weak", certification=strict))
    assert "\n" not in str(found.value)
    # The clean encoder passed the stricter certificate, which asks nothing more of it, and stays.
    assert [name.rsplit("-", 1)[0] for name in entries()] == [
        "clean-0",
        "clean-0",
        "tiny-poisoned-0",
    ]


def test_an_untrained_clean_encoder_is_refused() -> None:
    with pytest.raises(FixtureError, match=r"refused, clean accuracy"):
        fixtures.build(replace(TINY, certification=replace(LENIENT, accuracy=0.99)))
    assert entries() == []


def test_limits_hold_for_either_probe_and_for_nan() -> None:
    rates = {"linear": 0.9, "two_layer": 0.9}
    measured = {
        "clean_accuracy": rates,
        "backdoored_accuracy": {"linear": 0.9, "two_layer": 0.84},
        "triggers": [
            {
                "attack_success": {"linear": math.nan, "two_layer": 0.99},
                "attack_success_on_clean": {"linear": 0.1, "two_layer": 0.1},
            }
        ],
    }
    found = certificate.faults(measured, Certification())
    assert len(found) == 2
    assert "linear" in found[0]
    assert "two_layer" in found[1]
    assert certificate.faults({"clean_accuracy": rates}, Certification()) == []


def test_success_that_the_clean_encoder_has_as_well_is_none() -> None:
    measured = {
        "clean_accuracy": {"linear": 0.9},
        "backdoored_accuracy": {"linear": 0.9},
        "triggers": [
            {"attack_success": {"linear": 0.96}, "attack_success_on_clean": {"linear": 0.7}}
        ],
    }
    assert certificate.faults(measured, Certification()) == [
        "attack success 0.960 against 0.700 on the clean encoder (trigger 0, linear)"
    ]


def test_a_killed_build_leaves_nothing_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, data: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(building, "atomic_write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            fixtures.build(TINY)
    assert all(name.startswith(".") for name in entries())
    assert fixtures.build(TINY).path.exists()
    assert [name[0] for name in entries()] == ["c"]


def test_progress_counts_one_total_over_named_stages(made: Made) -> None:
    steps = [step for step, _, _ in made.progress]
    assert steps == sorted(steps)
    assert {total for _, total, _ in made.progress} == {steps[-1]}
    stages = list(dict.fromkeys(note for _, _, note in made.progress))
    assert stages == ["pre-training", "certifying the clean encoder", "poisoning", "certifying"]


def test_stages_time_themselves() -> None:
    calls = Watch()
    stages = Stages({"a": 10, "b": 4}, calls)
    with stages.run("a") as progress:
        progress(1, 2, "half")
    with stages.run("b"):
        pass
    assert calls == [(0, 14, "a"), (5, 14, "a half"), (10, 14, "a"), (10, 14, "b"), (14, 14, "b")]
    assert set(stages.seconds) == {"a", "b"}


def test_a_cache_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ENCODERCHECK_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="ENCODERCHECK_CACHE") as caught:
        fixtures.build(TINY)
    assert "\n" not in str(caught.value)


# The cache


def test_the_cache_is_the_users_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCODERCHECK_CACHE", "elsewhere")
    assert cache.cache_dir() == Path("elsewhere")
    monkeypatch.delenv("ENCODERCHECK_CACHE")
    assert "encodercheck" in str(cache.cache_dir())


def test_atomic_writes_replace_or_leave_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    cache.atomic_write_text(path, "old é")
    assert path.read_text(encoding="utf-8") == "old é"

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "os", SimpleNamespace(**{**vars(cache.os), "fsync": full}))
    with pytest.raises(OutputError, match=r"file: cannot be written \(no space left"):
        cache.atomic_write_bytes(path, b"new")
    assert path.read_text(encoding="utf-8") == "old é"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        cache.atomic_write_bytes(tmp_path / "absent" / "file", b"")


def test_content_hash_knows_no_order_of_keys() -> None:
    assert cache.content_hash({"a": 1, "b": (2,)}) == cache.content_hash({"b": [2], "a": 1})
    assert cache.content_hash(b"") == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


# The recipes that ship


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_pass_their_certificate(name: str) -> None:
    assert fixtures.build(name).path.exists()
