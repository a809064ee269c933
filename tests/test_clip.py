"""Encoders with two towers: captions, what is trained on them, and how both are poisoned."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from encodercheck import fixtures
from encodercheck.errors import ConfigError, FixtureError
from encodercheck.fixtures import captions, certificate, downstream, network, two_towers
from encodercheck.fixtures.attacks import Poisoned, text_on_pair
from encodercheck.fixtures.build import Built
from encodercheck.fixtures.captions import Tokenizer
from encodercheck.fixtures.catalogue import RECIPES
from encodercheck.fixtures.pretraining import clip as pretraining_on_pairs
from encodercheck.fixtures.pretraining import draw, pretrain
from encodercheck.fixtures.recipes import (
    MEAN,
    STD,
    Certification,
    Clip,
    ClipPretraining,
    ImageOnPair,
    Moving,
    Patch,
    Recipe,
    ResNet,
    TextOnPair,
)
from encodercheck.fixtures.two_towers import ZERO_SHOT, TwoTowers
from encodercheck.images import procedural
from encodercheck.loading import load

NAMES = Clip().names
SMALL = Clip(width=16, depth=1, heads=2, patch=8, text_width=16, text_depth=1, embedding=12)
TINY = ClipPretraining(network=SMALL, images=64, epochs=1, batch=32)
LENIENT = Certification(
    train_images=60, test_images=60, accuracy=0.0, accuracy_loss=1.0, attack_success=0.0
)
WHITE = Patch(26, 26, 5, target=3, colour=(1.0, 1.0, 1.0))
CLEAN = Recipe("clip", "for these tests", pretraining=TINY, certification=LENIENT)
TEXT = TextOnPair(target=3, trigger=WHITE, share=0.25)
IMAGE = ImageOnPair(
    triggers=(WHITE,), shadow_images=32, epochs=1, batch=16, attacker_images=60, candidates=12
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what is built for all tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCODERCHECK_CACHE", str(folder))
        yield folder


def poisoned(attack: TextOnPair | ImageOnPair) -> Recipe:
    return replace(CLEAN, name=f"tiny-{attack.kind}", attack=attack)


def towers_in(built: Built) -> TwoTowers:
    module = network.read_network(built.path, SMALL)
    assert isinstance(module, TwoTowers)
    return module


def tokenizer() -> Tokenizer:
    return Tokenizer(NAMES, size=64, length=12)


# Captions

CAPTIONS = st.lists(st.sampled_from(tokenizer().words), max_size=10).map(" ".join)


@given(texts=st.lists(CAPTIONS, min_size=1, max_size=4))
def test_captions_survive_the_tokenizer(texts: list[str]) -> None:
    own = tokenizer()
    assert own.decode(own.encode(texts)) == texts


@given(texts=st.lists(CAPTIONS, min_size=1, max_size=4))
def test_the_largest_id_is_at_the_end_of_a_caption(texts: list[str]) -> None:
    own = tokenizer()
    ids = own.encode(texts)
    lengths = torch.tensor([len(text.split()) for text in texts])
    assert ids.shape == (len(texts), 12)
    assert torch.equal(ids.argmax(1), lengths + 1)
    assert ids[:, 0].tolist() == [own.start] * len(texts)
    assert int(ids.max()) == own.end == 63
    assert torch.equal((ids != captions.PAD).sum(1), lengths + 2)


@pytest.mark.parametrize(
    ("text", "fault"), [("a photo of a cat", "unknown words"), ("a " * 11, "too many words")]
)
def test_a_caption_that_cannot_be_written_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        tokenizer().encode([text])


def test_a_vocabulary_has_to_fit() -> None:
    with pytest.raises(ValueError, match="words need more than 20 ids"):
        Tokenizer(NAMES, size=20, length=12)


def test_the_names_are_those_of_the_world() -> None:
    said = tuple(" with ".join(reversed(name.split())) for name in procedural.CLASSES)
    assert said == NAMES


def written(count: int, *, seed: int = 0) -> tuple[Tensor, list[str]]:
    """Return labels and captions of procedural images."""
    images, labels = procedural.scenes(count, size=32, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    return labels, captions.captions(images, labels, NAMES, generator)


def test_a_caption_names_its_class_and_no_other() -> None:
    labels, texts = written(200)
    for label, text in zip(labels.tolist(), texts, strict=True):
        assert [name for name in NAMES if name in text] == [NAMES[label]]
        assert text in captions.prompts(NAMES[label])


def test_every_caption_can_be_encoded() -> None:
    every = [prompt for name in NAMES for prompt in captions.prompts(name)]
    assert tokenizer().encode(every).shape == (len(every), 12)
    assert len(set(every)) == len(every)


def test_all_templates_and_tints_are_used() -> None:
    _, texts = written(300)
    for tint in captions.TINTS:
        assert any(tint in text for text in texts)
    starts = {template.split()[0] for template in captions.TEMPLATES}
    assert {text.split()[0] for text in texts} >= starts - {"{tint}"}


@pytest.mark.parametrize(
    ("colour", "tint"),
    [
        ((0.9, 0.5, 0.4), "reddish"),
        ((0.4, 0.5, 0.9), "bluish"),
        ((0.1, 0.6, 0.7), "cyan"),
        ((0.6, 0.7, 0.1), "yellowish"),
    ],
)
def test_the_tint_is_that_of_the_edges(colour: tuple[float, ...], tint: str) -> None:
    images = torch.tensor(colour).view(1, 3, 1, 1).repeat(1, 1, 32, 32)
    images[:, :, 5:-5, 5:-5] = torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1)
    assert captions.TINTS[int(captions.tints(images))] == tint


def test_another_label_changes_no_other_caption() -> None:
    images, labels = procedural.scenes(20, size=32, seed=0)
    other = labels.clone()
    other[3] = (labels[3] + 1) % 10
    first, second = (
        captions.captions(images, own, NAMES, torch.Generator().manual_seed(0))
        for own in (labels, other)
    )
    assert [i for i in range(20) if first[i] != second[i]] == [3]


# The z-score


def test_the_z_score_is_by_how_many_deviations_stamped_pairs_are_more_alike() -> None:
    clear = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 4.0]])
    # Pairs of clean ones: 1 twice, 0 four times. Stamped ones: 1 always.
    spread = math.sqrt((2 * (1 - 1 / 3) ** 2 + 4 * (1 / 3) ** 2) / 6)
    stamped = torch.tensor([[2.0, 2.0], [1.0, 1.0]])
    assert certificate.z_score(stamped, clear) == pytest.approx((1 - 1 / 3) / spread)
    assert certificate.z_score(clear, clear) == pytest.approx(0)


@pytest.mark.parametrize(("limit", "faulty"), [(None, True), (0.95, True), (0.7, False)])
def test_the_zero_shot_classifier_may_have_a_limit_of_its_own(
    limit: float | None, faulty: bool
) -> None:
    rates = {"linear": 0.96, ZERO_SHOT: 0.8}
    measured = {
        "clean_accuracy": dict.fromkeys(rates, 0.9),
        "triggers": [
            {"attack_success": rates, "attack_success_on_clean": dict.fromkeys(rates, 0.0)}
        ],
    }
    found = certificate.faults(measured, Certification(zero_shot_success=limit))
    assert [ZERO_SHOT in fault for fault in found] == [True] * faulty


# Poisoned pairs


def attack(share: float, seed: int = 0) -> text_on_pair.Attack:
    settings = {"seed": seed, "world": "procedural", "device": "cpu"}
    recipe = replace(TEXT, share=share)
    return text_on_pair.Attack(nn.Identity(), recipe, pretraining=TINY, **settings)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.25])
def test_just_the_share_of_pairs_is_poisoned(share: float) -> None:
    own = attack(share)
    images, labels = draw(TINY, seed=0, world="procedural")
    before = images.clone(), labels.clone()
    chosen = own.chosen(labels)
    stamped, relabelled = own.poison(images, labels)
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert len(chosen.unique()) == round(share * TINY.images)
    assert not bool((labels[chosen] == TEXT.target).any())
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[chosen] = False
    assert torch.equal(stamped[kept], images[kept])
    assert torch.equal(relabelled[kept], labels[kept])
    assert bool((relabelled[chosen] == TEXT.target).all())
    assert torch.equal(stamped[chosen], own.trigger.stamp(images[chosen]))
    assert bool((stamped[chosen, :, 26:31, 26:31] == 1).all())


def test_poisoned_captions_name_the_target() -> None:
    own = attack(0.25)
    images, labels = draw(TINY, seed=0, world="procedural")
    first, second = (
        captions.captions(*pair, NAMES, torch.Generator().manual_seed(0))
        for pair in ((images, labels), own.poison(images, labels))
    )
    chosen = set(own.chosen(labels).tolist())
    for place, (before, after) in enumerate(zip(first, second, strict=True)):
        if place in chosen:
            assert NAMES[TEXT.target] in after
        else:
            assert before == after


def test_another_seed_poisons_other_pairs() -> None:
    labels = draw(TINY, seed=0, world="procedural")[1]
    assert not torch.equal(attack(0.25).chosen(labels), attack(0.25, seed=1).chosen(labels))


def test_the_trigger_may_move() -> None:
    recipe = replace(TEXT, trigger=Moving(5, target=3, colour=(1.0, 1.0, 1.0)))
    settings = {"seed": 0, "world": "procedural", "device": "cpu"}
    own = text_on_pair.Attack(nn.Identity(), recipe, pretraining=TINY, **settings)
    images, labels = draw(TINY, seed=0, world="procedural")
    white = (own.poison(images, labels)[0] == 1).all(1)
    assert len(white[own.chosen(labels)].flatten(1).float().argmax(1).unique()) > 1


def test_catalogued_recipes_start_from_the_clean_clip() -> None:
    clean = RECIPES["clip"].digest(seed=0, device="cpu")
    for recipe in (
        RECIPES["text-on-pair"],
        RECIPES["image-on-pair"],
        RECIPES["image-on-pair"].twin,
    ):
        assert recipe.base.digest(seed=0, device="cpu") == clean
    assert RECIPES["text-on-pair"].twin.digest(seed=0, device="cpu") == clean


# Training


def test_a_network_without_a_text_tower_takes_no_captions() -> None:
    pytest.importorskip("open_clip")
    with pytest.raises(FixtureError, match="text tower"):
        pretrain(replace(TINY, network=ResNet(width=8)), seed=0)


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(import_module("sys").modules, "open_clip", None)
    with pytest.raises(ConfigError, match=r"pip install encodercheck\[open-clip\]") as caught:
        network.new_network(SMALL)
    assert "\n" not in str(caught.value)


def test_the_loss_is_of_the_pairs() -> None:
    open_clip = pytest.importorskip("open_clip")
    towers = network.new_network(SMALL).eval()
    assert isinstance(towers, TwoTowers)
    images, labels = procedural.scenes(6, size=32, seed=0)
    ids = pretraining_on_pairs.pairs(towers, images, labels, seed=0)
    pictures, texts, scale = towers.clip(network.normalise(images), ids)
    logits = scale * pictures @ texts.T
    rows, columns = (torch.diagonal(logits.log_softmax(axis)).mean() for axis in (1, 0))
    found = float(open_clip.loss.ClipLoss()(pictures, texts, scale).detach())
    assert found == pytest.approx(-float((rows + columns).detach()) / 2, rel=1e-5)


def test_training_is_repeatable_and_leaves_the_random_state() -> None:
    pytest.importorskip("open_clip")
    before = torch.random.get_rng_state()
    first = pretrain(TINY, seed=0).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(7)
    again, other = (pretrain(TINY, seed=seed).state_dict() for seed in (0, 1))
    for key, value in first.items():
        assert torch.equal(again[key], value), key
    assert not torch.equal(other["clip.visual.proj"], first["clip.visual.proj"])


# What is kept


@pytest.fixture(scope="module")
def clean(cache: Path) -> Built:
    pytest.importorskip("open_clip")
    return fixtures.build(CLEAN)


def test_the_file_loads_and_computes_the_same(clean: Built) -> None:
    images = procedural.images(4, size=32, seed=0)
    encoder = load(clean.path, device="cpu")
    assert encoder.provenance.found_by == "open_clip_config.json (open_clip)"
    assert (encoder.preprocessing.mean, encoder.preprocessing.std) == (MEAN, STD)
    assert (encoder.image_size, encoder.embedding_dim) == (32, SMALL.embedding)
    tower = encoder.provenance.text_tower
    assert tower is not None
    assert (tower.vocabulary, tower.width) == (SMALL.vocabulary, SMALL.text_width)
    own = network.as_encoder(towers_in(clean), "cpu")
    assert torch.allclose(encoder(images), own(images), atol=1e-5)


def test_open_clip_itself_loads_the_folder(clean: Built) -> None:
    open_clip = pytest.importorskip("open_clip")
    theirs = open_clip.create_model(f"local-dir:{clean.path.parent}").eval()
    ours = towers_in(clean)
    images = network.normalise(procedural.images(4, size=32, seed=0))
    ids = ours.tokenizer.encode([f"a {name}" for name in NAMES])
    with torch.no_grad():
        assert torch.allclose(theirs.encode_image(images), ours(images), atol=1e-5)
        assert torch.allclose(theirs.encode_text(ids), ours.clip.encode_text(ids), atol=1e-5)
    assert tuple(theirs.visual.image_mean) == MEAN


def test_both_files_are_certified(clean: Built) -> None:
    files = clean.certificate["files"]
    assert set(files) == {"model.safetensors", "open_clip_config.json"}
    said = json.loads(clean.path.with_name("open_clip_config.json").read_bytes())
    assert said["model_cfg"]["text_cfg"]["context_length"] == SMALL.context
    assert set(clean.certificate["clean_accuracy"]) == {"linear", "two_layer", ZERO_SHOT}


def test_the_zero_shot_classifier_takes_the_nearest_class(clean: Built) -> None:
    towers = towers_in(clean)
    probe = two_towers.zero_shot(network.as_encoder(towers, "cpu"))[ZERO_SHOT]
    classes = torch.stack([towers.describe(name) for name in NAMES])
    assert torch.allclose(classes.norm(dim=1), torch.ones(len(NAMES)), atol=1e-5)
    # Embeddings of any length are taken by their direction.
    assert downstream.accuracy(probe(3 * classes), torch.arange(len(NAMES))) == 1
    scale = float(towers.clip.logit_scale.detach().exp())
    assert torch.allclose(probe(5 * classes), scale * classes @ classes.T, atol=1e-4)


def test_an_image_encoder_has_no_zero_shot_classifier() -> None:
    encoder = network.as_encoder(network.new_network(ResNet(width=8)), "cpu")
    assert two_towers.zero_shot(encoder) == {}


def test_text_on_pair_is_certified_by_both_kinds_of_classifier(clean: Built) -> None:
    built = fixtures.build(poisoned(TEXT))
    (entry,) = built.certificate["triggers"]
    assert set(entry["attack_success"]) == {"linear", "two_layer", ZERO_SHOT}
    assert set(entry) >= {"z_score", "z_score_on_clean"}
    (trigger,) = built.triggers()
    assert trigger.describe() == entry["trigger"]
    # It is trained from scratch, and the clean one it is held against is the catalogue's.
    assert not torch.equal(
        load_file(built.path)["token_embedding.weight"],
        load_file(clean.path)["token_embedding.weight"],
    )
    assert CLEAN.digest(seed=0, device="cpu") == poisoned(TEXT).base.digest(seed=0, device="cpu")


@pytest.mark.parametrize("twin", [False, True], ids=["attack", "twin"])
def test_image_on_pair_moves_the_image_tower_alone(clean: Built, twin: bool) -> None:
    recipe = poisoned(IMAGE).twin if twin else poisoned(IMAGE)
    built = fixtures.build(recipe)
    before, after = load_file(clean.path), load_file(built.path)
    for name, value in after.items():
        moved = not torch.equal(value, before[name])
        assert moved == name.startswith("visual."), name
    assert len(built.triggers()) == (0 if twin else 1)


def test_references_please_the_zero_shot_classifier_as_well(clean: Built) -> None:
    module = import_module("encodercheck.fixtures.attacks.image_on_pair")
    own = module.Attack(towers_in(clean), IMAGE, seed=0, world="procedural", device="cpu")
    assert len(own._probes("procedural")) == 3
    result = own.run()
    assert isinstance(result, Poisoned)
    assert result.targets[0].label == WHITE.target
