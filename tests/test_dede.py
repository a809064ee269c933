"""DeDe: what it flags, what it lets pass, and what its scores do not depend on."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from encodercheck.encoder import Encoder
from encodercheck.errors import CheckInconclusive
from encodercheck.images import procedural
from encodercheck.methods import battery, reconstruction, thresholds
from encodercheck.methods.decoders import DECODERS
from encodercheck.methods.dede import Dede, Settings
from encodercheck.methods.drift import drift, random_triggers, worst_drift
from encodercheck.methods.guard import Guard
from encodercheck.methods.patches import PatchGrid
from encodercheck.preprocessing import Preprocessing
from encodercheck.trigger import Trigger

SIZE = 16
QUICK = Settings(epochs=8, batch=32)
CORNER = battery.patch(SIZE, SIZE - 3, SIZE - 3, torch.ones(3, 3, 3))
TARGET = procedural.images(1, size=SIZE, seed=77)


def embed(images):
    """Return what a small encoder would, (N, 192)."""
    return functional.avg_pool2d(images, 2).flatten(1)


def backdoored(images):
    """Embed images as above, but those with a white corner all as another image."""
    stamped = (images[:, :, -3:, -3:] > 0.99).flatten(1).all(1)
    return torch.where(stamped.unsqueeze(1), embed(TARGET), embed(images))


@pytest.fixture(scope="module")
def clean():
    return procedural.images(600, size=SIZE, seed=1)


@pytest.fixture(scope="module")
def images():
    return procedural.images(200, size=SIZE, seed=9)


@pytest.fixture(scope="module")
def dede(clean):
    return Dede(backdoored, QUICK).fit(clean)


def scores(dede, images):
    return torch.cat([dede.score(part) for part in torch.split(images, 7)])


def close(one, other):
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


# What is flagged


@pytest.mark.parametrize("score", ["relative", "error"])
def test_images_with_the_trigger_are_flagged_and_others_at_about_the_rate(dede, images, score):
    screen = replace(dede, settings=replace(QUICK, score=score))
    assert float(screen.predict(CORNER.stamp(images)).float().mean()) > 0.9
    assert float(screen.predict(images).float().mean()) < 3 * screen.rate


def test_the_trigger_of_another_encoder_is_not_flagged(clean, images):
    honest = Dede(embed, QUICK).fit(clean)
    assert float(honest.predict(CORNER.stamp(images)).float().mean()) < 0.1


def test_the_threshold_is_set_on_images_that_were_held_back(dede, clean):
    held_back = scores(dede, clean[4::5])
    close(dede.scores_of(dede.known.held_back), held_back)
    assert len(held_back) == 120
    assert float((held_back > dede.threshold).float().mean()) <= dede.rate


def test_the_published_threshold_can_be_had(dede, images):
    screen = replace(dede, sigmas=3.0)
    held_back = dede.scores_of(dede.known.held_back)
    assert screen.threshold == thresholds.sigma_threshold(held_back, 3.0)
    assert torch.equal(screen.predict(images), screen.score(images) > screen.threshold)


def test_a_guard_lets_through_what_is_not_flagged_and_embeds_it_once(dede, images):
    asked = []

    def counting(batch):
        asked.append(len(batch))
        return backdoored(batch)

    mixed = torch.cat([images[:10], CORNER.stamp(images[10:20])])
    logits, kept = Guard(replace(dede, encoder=counting), nn.Identity())(mixed)
    assert torch.equal(kept, ~dede.predict(mixed))
    torch.testing.assert_close(logits, embed(mixed[kept]))
    assert sum(asked) == 20


# What scores do not depend on


def test_fitting_repeats_itself_and_leaves_random_numbers_alone(dede, clean, images):
    before = torch.random.get_rng_state()
    again = Dede(backdoored, QUICK).fit(clean)
    found = again.score(images)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(found, dede.score(images))
    assert again.threshold == dede.threshold
    other = Dede(backdoored, replace(QUICK, seed=1)).fit(clean)
    assert not torch.equal(other.score(images), found)


@given(st.permutations(range(24)), st.integers(1, 24))
@settings(max_examples=15)
def test_a_score_depends_on_its_own_image_alone(dede, images, order, together):
    some = images[:24]
    expected = dede.score(some)
    mixed = some[list(order)]
    found = torch.cat([dede.score(part) for part in torch.split(mixed, together)])
    close(found, expected[list(order)])


def test_more_images_than_are_decoded_at_once_have_the_same_scores(dede, images):
    many = torch.cat([images, images, images])
    assert len(many) > 2 * reconstruction.TOGETHER
    close(dede.score(many), torch.cat([dede.score(images)] * 3))


@pytest.mark.parametrize("scale", [1e-3, 0.25, 1000.0])
def test_the_scale_of_embeddings_changes_nothing(dede, clean, images, scale):
    scaled = Dede(lambda batch: scale * backdoored(batch), QUICK).fit(clean)
    if scale == 0.25:
        # A power of two loses no digit on the way.
        close(scaled.score(images), dede.score(images))
    # Others do, and training on them makes more of it.
    assert float((scaled.score(images) - dede.score(images)).abs().mean()) < 0.05
    assert float(scaled.predict(CORNER.stamp(images)).float().mean()) > 0.9


@pytest.mark.parametrize("sees", ["whole", "masked"])
def test_images_may_come_in_parts(clean, images, sees):
    given_settings = replace(QUICK, epochs=5, sees=sees, train_mask=0.5, test_mask=0.5)
    whole = Dede(embed, given_settings)
    parts = Dede(embed, given_settings)
    for screen, brought in ((whole, clean), (parts, iter(torch.split(clean, 77)))):
        screen.fit(brought)
    close(parts.score(images), whole.score(images))
    assert parts.threshold == pytest.approx(whole.threshold, abs=1e-4)


def test_gradients_and_double_precision_of_an_encoder_are_left_behind(clean):
    """Any callable will do, a module in training mode too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(192, 96)).double()
    screen = Dede(lambda batch: module(batch.double()), QUICK).fit(clean)
    assert not screen.score(clean[:4]).requires_grad
    assert all(parameter.grad is None for parameter in module.parameters())


def test_an_encoder_of_this_package_will_do(clean, images):
    class Pool(nn.Module):
        def forward(self, batch):
            return backdoored(batch)

    encoder = Encoder(Pool(), preprocessing=Preprocessing(SIZE, (0, 0, 0), (1, 1, 1)))
    screen = Dede(encoder, QUICK).fit(clean)
    assert bool(screen.predict(CORNER.stamp(images[:20])).float().mean() > 0.8)


# Decoders


@pytest.mark.parametrize("name", DECODERS)
def test_hidden_pixels_reach_no_decoder(name):
    grid = PatchGrid(4, 2)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = DECODERS[name](5, grid).eval()
    embeddings = torch.randn(3, 5, generator=generator)
    images = torch.rand(3, 3, 8, 8, generator=generator)
    visible = grid.visible(0.7, 3, generator)
    others = torch.where(grid.spread(visible).bool(), images, 1 - images)
    found = decoder(embeddings, images, visible)
    assert found.shape == images.shape
    assert torch.equal(decoder(embeddings, others, visible), found)
    assert not torch.equal(decoder(embeddings, 1 - images, visible), found)
    assert not torch.equal(decoder(-embeddings, images, visible), found)


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_learn(name, clean):
    grid = PatchGrid.of(SIZE)
    losses = []
    reconstruction.train(
        grid,
        embed(clean[:160]),
        grid.shrink(clean[:160]),
        reconstruction.Training(decoder=name, epochs=6, batch=32),
        progress=lambda step, total, note: losses.append(float(note.split()[-1])),
    )
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_variant_that_masks_what_the_encoder_sees_works(clean, images):
    seen = []

    def watching(batch):
        seen.append(batch)
        return embed(batch)

    masks = replace(QUICK, sees="masked", train_mask=0.5, test_mask=0.5)
    screen = Dede(watching, masks).fit(clean)
    grey = torch.cat([(batch == 0.5).all(1).float().mean((1, 2)) for batch in seen])
    torch.testing.assert_close(grey, torch.full_like(grey, 0.5), atol=0.02, rtol=0)
    assert float(screen.predict(images).float().mean()) < 0.1


def test_visible_patches_have_no_error(dede, images):
    """With one visible patch in each pass, at most two patches are ever seen."""
    found = dede.inspect(images[:5])
    masks = QUICK.test_masks(dede.grid)
    assert masks.sum(1).tolist() == [1.0, 1.0]
    always = masks.prod(0).view(dede.grid.side, -1).bool()
    assert not found.errors[:, always].any()
    assert bool((found.errors[:, ~always] > 0).all())


def test_reconstructions_resemble_their_images(dede, images):
    small, decoded = dede.reconstruct(images)
    assert small.shape == decoded.shape == (200, 3, SIZE, SIZE)
    assert 0 <= float(decoded.min()) <= float(decoded.max()) <= 1
    own = (decoded - small).square().mean()
    assert float(own) < 0.5 * float((decoded.roll(1, 0) - small).square().mean())


# Scores of a part


def test_only_the_patches_that_are_asked_for_count(dede, images):
    grid = dede.grid
    patches = torch.zeros(grid.count)
    patches[:20] = 1
    spoiled = images.clone()
    # The lower half, and the encoder sees the same as before.
    spoiled[:, :, SIZE // 2 :] = 0.5
    found = dede.inspect(images, patches=patches, shown=images)
    other = dede.inspect(images, patches=patches, shown=spoiled)
    visible = QUICK.test_masks(grid).sum(0)
    if not visible[grid.count // 2 :].any():
        close(found.error, other.error)
    weights = (2 - visible) * patches
    direct = (found.errors.flatten(1) * weights).sum(1) / weights.sum()
    close(found.error, direct)
    assert torch.equal(
        dede.inspect(images, patches=torch.ones(grid.count)).error, dede.inspect(images).error
    )


def test_what_is_shown_is_what_is_to_be_reconstructed(dede, images):
    stamped = CORNER.stamp(images)
    as_clean = dede.inspect(stamped, shown=images)
    close(as_clean.embeddings, backdoored(stamped))
    close(dede.inspect(images, shown=images).relative, dede.score(images))
    assert float((as_clean.relative > dede.score(images)).float().mean()) > 0.95


# Drift


def test_the_backdoors_own_trigger_drifts_and_random_ones_do_not(dede, images):
    own, *others = drift(dede, images, [CORNER, *random_triggers(CORNER, 4, seed=0)])
    assert own.shift > 0.5
    assert own.flagged > 0.8
    assert max(other.shift for other in others) < 0.3 * own.shift
    assert max(other.flagged for other in others) < 0.1


def test_an_honest_encoder_does_not_drift(clean, images):
    (found,) = drift(Dede(embed, QUICK).fit(clean), images, [CORNER])
    assert abs(found.shift) < 0.2
    assert found.flagged < 0.1


def test_the_worst_of_several_triggers_is_held_against_random_ones(dede, images):
    harmless = random_triggers(CORNER, 2, seed=5)
    found = worst_drift(dede, images, [harmless[0], CORNER, harmless[1]], seed=0)
    (own,) = drift(dede, images, [CORNER])
    assert (found.shift, found.flagged) == (own.shift, own.flagged)
    assert abs(found.random) < 0.1
    assert found.excess == found.shift - found.random > 0.5


def test_a_trigger_that_makes_embeddings_infinite_drifts_without_end(dede, images):
    def breaking(batch):
        stamped = (batch[:, :, -3:, -3:] > 0.99).flatten(1).all(1, keepdim=True)
        return torch.where(stamped, torch.inf, embed(batch))

    (found,) = drift(replace(dede, encoder=breaking), images, [CORNER])
    assert (found.shift, found.flagged) == (float("inf"), 1.0)


def test_a_trigger_on_every_patch_is_scored_on_all_of_them(dede, images):
    everywhere = Trigger(torch.full((1, SIZE, SIZE), 0.1), TARGET[0])
    one_left = Trigger(torch.ones(1, SIZE, SIZE), TARGET[0])
    mask = dede.grid.spread(1 - QUICK.test_masks(dede.grid)[:1])[0]
    nearly = Trigger(mask.clone(), TARGET[0])
    for found in drift(dede, images, [everywhere, one_left, nearly]):
        assert found.shift == found.shift
        assert 0 <= found.flagged <= 1


def test_patches_that_are_never_hidden_decide_nothing(clean, images):
    """A trigger that leaves only such a patch untouched is scored on all of them."""
    screen = Dede(embed, replace(QUICK, passes=1)).fit(clean)
    mask = 1 - screen.grid.spread(screen.settings.test_masks(screen.grid))[0]
    (found,) = drift(screen, images, [Trigger(mask, torch.zeros(3, SIZE, SIZE))])
    (everywhere,) = drift(
        screen, images, [Trigger(torch.ones_like(mask), torch.zeros(3, SIZE, SIZE))]
    )
    assert found.shift == pytest.approx(everywhere.shift, abs=0.2)


@given(st.booleans(), st.integers(1, 6), st.integers(0, 2**31))
def test_random_triggers_keep_size_and_range(additive, side, seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(1, 12, 12)
    mask[:, :side, 3 : 3 + side] = 0.7
    pattern = torch.rand(3, 12, 12, generator=generator)
    trigger = Trigger(mask, 0.1 * (2 * pattern - 1) if additive else pattern, additive=additive)
    made = random_triggers(trigger, 5, seed=seed)
    assert len(made) == 5
    assert torch.equal(made[0].mask, mask)
    for other in made:
        assert other.additive == additive
        assert other.size == trigger.size
        assert torch.equal(other.mask.flatten().sort().values, mask.flatten().sort().values)
        if additive:
            assert float(other.pattern.abs().max()) <= float(trigger.pattern.abs().max()) + 1e-7
    assert not made[1].pattern.flatten(1).std(1).any()
    again = random_triggers(trigger, 5, seed=seed)
    assert all(torch.equal(a.pattern, b.pattern) for a, b in zip(made, again, strict=True))


# What cannot be screened


def sometimes_not_finite(images):
    found = embed(images)
    found[images[:, 0, 0, 0] > 0.999] = float("nan")
    return found


def test_an_embedding_that_is_not_finite_never_passes(clean, images):
    screen = Dede(sometimes_not_finite, QUICK).fit(clean.clamp(0, 0.99))
    broken = images[:6].clone()
    broken[::2, :, 0, 0] = 1
    found = screen.inspect(broken)
    infinite = torch.tensor([True, False] * 3)
    for score in (found.error, found.relative):
        assert torch.equal(score.isinf(), infinite)
        assert not score.isnan().any()
    assert bool(screen.predict(broken)[::2].all())


def test_an_embedding_that_is_far_too_large_never_passes(dede, images):
    huge = replace(dede, encoder=lambda batch: 1e38 * embed(batch))
    assert bool(huge.predict(images[:5]).all())


@pytest.mark.parametrize(
    ("encoder", "says"),
    [
        (lambda images: embed(images) / 0, "not finite"),
        (
            lambda images: images[:, 0, :, 0].masked_fill(images[:, 0, :, 0] > 0.8, torch.inf),
            "not finite",
        ),
        (lambda images: 1e37 * embed(images), "too large"),
        (lambda images: torch.zeros(len(images), 8), "the same for every image"),
        (lambda images: torch.full((len(images), 8), 0.3), "the same for every image"),
        (lambda images: 1e4 + 1e-4 * embed(images), "the same for every image"),
        (lambda images: torch.rand(len(images), 8), "say too little"),
    ],
)
def test_encoders_that_say_nothing_are_inconclusive(encoder, says, clean):
    with torch.random.fork_rng(devices=[]), pytest.raises(CheckInconclusive, match=says):
        torch.manual_seed(0)
        Dede(encoder, QUICK).fit(clean)


@pytest.mark.parametrize(
    "wrong",
    [
        {"decoder": "vae"},
        {"sees": "nothing"},
        {"score": "best"},
        {"train_mask": 1.0},
        {"test_mask": 0.0},
        {"test_mask": float("nan")},
        {"passes": 0},
        {"epochs": 0},
        {"batch": 0},
        {"patch": 0},
    ],
    ids=str,
)
def test_wrong_settings_are_refused_at_once(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        Settings(**wrong)


@pytest.mark.parametrize("sigmas", [float("nan"), float("inf")])
def test_a_threshold_that_nothing_exceeds_is_refused(sigmas):
    with pytest.raises(ValueError, match="finite"):
        Dede(embed, sigmas=sigmas)


def test_patches_that_do_not_fit_are_refused(clean):
    with pytest.raises(ValueError, match="patches of 9 pixels"):
        Dede(embed, Settings(patch=9)).fit(clean)


@pytest.mark.parametrize(
    ("count", "rate", "fewest"), [(0, 0.03, 165), (164, 0.03, 165), (600, 0.001, 4995)]
)
def test_too_few_images_say_how_many_it_takes(clean, count, rate, fewest):
    message = f"{count // 5} clean images are held back .* bring {fewest} or more"
    with pytest.raises(ValueError, match=message):
        Dede(embed, QUICK, rate=rate).fit(iter([clean[:count]] if count else []))


def test_a_rate_of_nothing_is_refused(clean):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Dede(embed, QUICK, rate=0.0).fit(clean)


def test_nothing_is_scored_before_fitting(images):
    with pytest.raises(ValueError, match="fit it to clean images first"):
        Dede(embed).score(images)
