"""The search for triggers: what a family allows, how it climbs, and when it ends."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from benchmarks import reference
from encodercheck.encoder import Encoder
from encodercheck.images import procedural
from encodercheck.images.split import CleanSplit
from encodercheck.methods import ascent, battery, collapse, inversion
from encodercheck.methods.families import Additive, Blend, Box, boxes, pixel_masks
from encodercheck.methods.stopping import (
    FIRST_LOOK,
    FOUND,
    PROMISING,
    Stopping,
)
from encodercheck.preprocessing import Preprocessing
from encodercheck.profiles import Profile

SIZE = 16
CPU = torch.device("cpu")
EFFORT = Profile(
    "test", 12, 24, 12, restarts=6, steps=30, decree_steps=30, battery_images=6, decoder_images=300
)


class Backdoored(nn.Module):
    """Embeds pixels; where the corner shows red on the left and green on the right, a constant."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        generator = torch.Generator().manual_seed(3)
        self.register_buffer("target", torch.randn(3 * SIZE**2, generator=generator))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.kind == "patch":
            corner = images[:, :, 12:14, 12:14].mean((2, 3))
            seen = corner[:, 0] - corner[:, 1] - corner[:, 2]
        else:
            wave = battery.dct_wave(32, 16, 16)[:SIZE, :SIZE]
            seen = 40 * (images.mean(1) * wave).mean((1, 2))
        strength = torch.sigmoid(12 * (seen - 0.5)).unsqueeze(1)
        features = images.flatten(1) - 0.45
        return (1 - strength) * features + 4 * strength * self.target


def make(module: nn.Module) -> Encoder:
    return Encoder(module, preprocessing=Preprocessing(SIZE, (0, 0, 0), (1, 1, 1)))


@pytest.fixture(scope="module")
def split() -> CleanSplit:
    images = procedural.images(36, size=SIZE, seed=5)
    return CleanSplit(images[:12], images[12:])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gain(encoder, trigger, images):
    base = collapse.base_cosine(encoder, images)
    return collapse.gain(collapse.stamped_cosine(encoder, trigger, images), base)


# Families


def some(kind, restarts=3, seed=0, size=SIZE):
    random = generator(seed)
    if kind == "pixels":
        return pixel_masks([], restarts, size, budget=0.03, generator=random, device=CPU)
    if kind == "boxes":
        return boxes([], restarts, size, budget=0.05, generator=random, device=CPU)
    noise = torch.rand(restarts, 3, size, size, generator=random)
    return Additive([noise - 0.5], 8 / 255) if kind == "additive" else Blend([noise], 0.2)


KINDS = ("pixels", "boxes", "additive", "blend")


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**31), scale=st.floats(-3, 3))
def test_projected_triggers_keep_within_their_family(kind, seed, scale):
    family = some(kind, seed=seed)
    for tensor in family.parameters:
        tensor.add_(scale * torch.randn(tensor.shape, generator=generator(seed + 1)))
    family.project()
    for trigger in family.triggers():
        images = torch.rand(2, 3, SIZE, SIZE, generator=generator(seed))
        stamped = trigger.stamp(images)
        assert float(stamped.min()) >= 0
        assert float(stamped.max()) <= 1
        if kind == "pixels":
            assert trigger.pl1 <= 0.03 + 1e-4
        if kind == "boxes":
            assert trigger.pl1 <= 0.05 + 1e-4
        if kind == "additive":
            assert float((stamped - images).abs().max()) <= 8 / 255 + 1e-6
        if kind == "blend":
            assert trigger.pl1 == pytest.approx(0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_family_stamps_as_its_triggers_do(kind):
    family = some(kind)
    family.project()
    images = torch.rand(2, 3, SIZE, SIZE, generator=generator(7))
    stamped = family.stamp(images, *family.parameters)
    assert stamped.shape == (3, 2, 3, SIZE, SIZE)
    for got, trigger in zip(stamped, family.triggers(), strict=True):
        torch.testing.assert_close(got, trigger.stamp(images))


@pytest.mark.parametrize("kind", KINDS)
def test_projecting_twice_changes_nothing(kind):
    family = some(kind)
    family.project()
    before = [tensor.clone() for tensor in family.parameters]
    family.project()
    for tensor, kept in zip(family.parameters, before, strict=True):
        torch.testing.assert_close(tensor, kept, atol=1e-4, rtol=0)


@given(st.integers(1, 40), st.integers(8, 64), st.integers(0, 2**31))
def test_boxes_begin_all_over_the_image(restarts, size, seed):
    family = boxes([], restarts, size, budget=0.05, generator=generator(seed), device=CPU)
    centres = 10 * family.parameters[0]
    assert len(family) == restarts
    assert float(centres.min()) >= 0
    assert float(centres.max()) <= size
    if restarts >= 4:
        for axis in (0, 1):
            assert float(centres[:, axis].min()) < size / 2 < float(centres[:, axis].max())


def test_warm_restarts_begin_where_the_triggers_are():
    patch = battery.patch(SIZE, 3, 9, torch.ones(3, 4, 4))
    box = boxes([patch], 2, SIZE, budget=0.0625, generator=generator(), device=CPU)
    box.project()
    assert box.triggers()[0].box[:2] in {(2, 8), (3, 9)}
    mask = pixel_masks([patch], 2, SIZE, budget=0.1, generator=generator(), device=CPU)
    mask.project()
    assert float((mask.triggers()[0].mask * patch.mask).sum()) > 10


def test_a_box_may_be_moved_by_its_gradient():
    """A box half over a bright square is drawn on to it."""
    target = torch.zeros(1, SIZE, SIZE)
    target[:, 6:10, 6:10] = 1
    family = Box([torch.tensor([[0.6, 0.6]]), torch.zeros(1), torch.ones(1, 3, SIZE, SIZE)], 16)

    class Overlap(nn.Module):
        def forward(self, images):
            return images.mean(1).mul(target).sum((1, 2)).unsqueeze(1)

    ascent.ascend(
        make(Overlap()),
        torch.zeros(4, 3, SIZE, SIZE),
        family,
        steps=30,
        batch=4,
        generator=generator(),
        objective=lambda embeddings, which: embeddings.mean((1, 2)),
    )
    assert float((10 * family.parameters[0] - 8).abs().max()) < 1


# Ascent


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_gradients_do_not_depend_on_the_batch_size(kind, split):
    encoder = make(Backdoored("patch"))
    family = some(kind, restarts=5)
    family.project()
    encoder.batch_size = 1000
    whole, wholes = ascent.scores_and_gradients(encoder, split.search, family)
    encoder.batch_size = 2 * len(split.search)
    parts, grads = ascent.scores_and_gradients(encoder, split.search, family)
    torch.testing.assert_close(whole, parts)
    for one, other in zip(wholes, grads, strict=True):
        torch.testing.assert_close(one, other)


def test_the_mixed_score_goes_by_the_number_of_the_restart(split):
    """Restarts keep their own score, however they are grouped."""
    encoder = make(Backdoored("patch"))
    family = some("boxes", restarts=5)
    family.project()
    clean = collapse.Clean.of(encoder, split.search)
    objective = inversion.collapse_score(clean)
    whole, _ = ascent.scores_and_gradients(encoder, split.search, family, objective)
    encoder.batch_size = len(split.search)
    alone, _ = ascent.scores_and_gradients(encoder, split.search, family, objective)
    torch.testing.assert_close(whole, alone)
    gains, whitened = (
        torch.tensor(values).double()
        for values in collapse.stamped_gains(encoder, clean, family.triggers(), split.search)
    )
    torch.testing.assert_close(whole[::2], gains[::2], atol=1e-4, rtol=0)
    torch.testing.assert_close(whole[3::4], whitened[3::4], atol=1e-4, rtol=0)


def test_targets_are_approached(split):
    encoder = make(nn.Flatten())
    family = some("blend", restarts=2)
    targets = encoder(split.held_out[:2])
    objective = ascent.towards(targets)
    before, _ = ascent.scores_and_gradients(encoder, split.search, family, objective)
    arguments = {"steps": 10, "batch": 12, "generator": generator()}
    assert ascent.ascend(encoder, split.search, family, objective=objective, **arguments) == 10
    after, _ = ascent.scores_and_gradients(encoder, split.search, family, objective)
    assert bool((after > before).all())


# Stopping


def scores(*values):
    return torch.tensor(values)


def test_a_restart_must_show_three_times_in_a_row_to_be_found():
    watch = Stopping(40, limit=0.8)
    far = 1 - FOUND * 0.2 + 0.01
    assert not watch(1, scores(0.1, far))
    assert not watch(2, scores(0.1, 0.85))
    assert not watch(3, scores(far, far))
    assert not watch(4, scores(far, 0.3))
    assert not watch(5, scores(0.3, far))
    assert not watch(6, scores(far, far))
    assert watch(7, scores(0.3, far))
    assert watch.ended == "found"
    assert len(watch.trace) == 7


def ended_after(watch, *tracks):
    """Return after how many steps the search with these restarts' scores is over, or None."""
    for number, values in enumerate(zip(*tracks, strict=True), start=1):
        if watch(number, scores(*values)):
            return number
    return None


@pytest.mark.parametrize("limit", [0.5, 0.8, 0.99])
def test_a_search_that_rises_no_more_is_given_up_whatever_the_limit(limit):
    watch = Stopping(40, limit=limit)
    assert ended_after(watch, [0.3] * 40, [0.2] * 40) == FIRST_LOOK
    assert watch.ended == "hopeless"


def test_a_search_that_rises_fast_enough_goes_on():
    rising = [PROMISING + 0.08 - 0.03 * (39 - number) for number in range(40)]
    watch = Stopping(40, limit=1.0)
    assert ended_after(watch, rising, [-2.0] * 40) is None
    assert watch.ended == "exhausted"


def test_a_search_that_would_not_get_there_is_given_up():
    rising = [PROMISING - 0.3 - 0.01 * (39 - number) for number in range(40)]
    assert ended_after(Stopping(40, limit=0.99), rising) == FIRST_LOOK


def test_a_search_near_collapse_goes_on():
    assert ended_after(Stopping(40, limit=0.99), [PROMISING + 0.01] * 40) is None


def test_one_lucky_restart_at_a_time_is_no_rise():
    """Few images make scores noisy: each restart is judged by its own mean over several batches."""
    lucky = [[0.9 if n % 4 == i else 0.2 for n in range(40)] for i in range(4)]
    assert ended_after(Stopping(40, limit=0.95), *lucky) == FIRST_LOOK


def test_a_patient_search_is_not_given_up():
    assert ended_after(Stopping(40, limit=0.8, patient=True), [0.3] * 40) is None


@given(st.lists(st.floats(-1, 1), min_size=40, max_size=40))
def test_without_a_limit_a_search_goes_to_its_end(values):
    watch = Stopping(40)
    assert not any(watch(number, scores(value)) for number, value in enumerate(values, start=1))
    assert watch.ended == "exhausted"


def test_scores_that_are_no_numbers_end_nothing():
    watch = Stopping(40, limit=0.8)
    assert not any(watch(number, scores(float("nan"))) for number in range(1, 41))


# Whole searches


def test_the_backdoor_of_a_patch_is_found_and_the_search_ends_early(split):
    encoder = make(Backdoored("patch"))
    found = inversion.invert(encoder, split.search, profile=EFFORT, limit=0.9)
    assert found.ended == "found"
    assert found.steps < EFFORT.steps
    assert gain(encoder, found.trigger, split.held_out) > 0.9
    top, left, height, width = found.trigger.box
    assert top <= 13 < top + height
    assert left <= 13 < left + width


def test_a_faint_backdoor_is_found_by_the_faint_families(split):
    encoder = make(Backdoored("wave"))
    found = inversion.invert_faint(encoder, split.search, profile=EFFORT)
    honest = inversion.invert_faint(make(nn.Flatten()), split.search, profile=EFFORT)
    assert gain(encoder, found.trigger, split.held_out) > 0.9
    assert gain(make(nn.Flatten()), honest.trigger, split.held_out) < 0.8


def test_a_large_box_reaches_further_than_a_small_one(split):
    encoder = make(nn.Flatten())
    large = inversion.invert_large(encoder, split.search, profile=EFFORT)
    small = inversion.invert(encoder, split.search, profile=EFFORT)
    assert large.trigger.pl1 <= inversion.LARGE_BUDGET + 1e-4
    assert large.scores[0] > small.scores[0]


@pytest.mark.parametrize(
    "search", [inversion.invert, inversion.invert_faint, inversion.invert_large]
)
def test_searches_repeat_themselves_and_leave_random_numbers_alone(search, split):
    encoder = make(Backdoored("patch"))
    before = torch.random.get_rng_state()
    first, again = (search(encoder, split.search, profile=EFFORT, seed=3) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.trace == again.trace
    assert first.scores == again.scores == tuple(sorted(first.scores, reverse=True))
    assert torch.equal(first.trigger.mask, again.trigger.mask)
    assert torch.equal(first.trigger.pattern, again.trigger.pattern)


def test_another_seed_searches_from_elsewhere(split):
    """Who repeats a scan with another seed gets another search, and not the same again."""
    encoder = make(Backdoored("patch"))
    short = replace(EFFORT, steps=2)
    for search in (inversion.invert, inversion.invert_faint, inversion.invert_large):
        one, other = (search(encoder, split.search, profile=short, seed=seed) for seed in (3, 4))
        assert one.trace != other.trace
        assert not torch.equal(one.trigger.pattern, other.trigger.pattern)


def test_a_faint_trigger_changes_no_more_than_it_may(split):
    """What EC203 fails an encoder for is as faint as docs/checks.md says."""
    found = inversion.invert_faint(make(Backdoored("wave")), split.search, profile=EFFORT)
    assert found.trigger.additive
    for trigger in found.candidates:
        if trigger.additive:
            changes = trigger.stamp(split.held_out) - split.held_out
            assert float(changes.abs().max()) <= 16 / 255 + 1e-6
        else:
            assert float(trigger.mask.max()) <= 0.2 + 1e-6


# The published loop, which ours is compared with


def test_the_reference_keeps_its_smallest_success_and_stops_early():
    images = procedural.images(200, size=SIZE, seed=5)
    found = reference.invert(make(Backdoored("patch")), images, epochs=120)
    assert found.steps < 240
    assert found.pl1 < 1
    assert found.trigger is not None
    assert found.trigger.pl1 == pytest.approx(found.pl1)


def test_the_reference_without_success_claims_no_backdoor():
    images = procedural.images(60, size=SIZE, seed=5)
    found = reference.invert(make(nn.Flatten()), images, epochs=2)
    assert (found.pl1, found.trigger, found.backdoored) == (1.0, None, False)


def test_the_reference_keeps_the_published_schedule():
    small, large = (reference.Settings.for_size(size) for size in (32, 224))
    assert [small.rate(epoch) for epoch in (0, 29, 30, 49, 50, 999)] == [
        0.5, 0.5, 0.1, 0.1, 0.05, 0.05,
    ]  # fmt: skip
    assert [large.rate(epoch) for epoch in (0, 200, 500)] == [0.5, 0.1, 0.05]
    assert (small.lambda_least, large.lambda_least) == (1e-5, 1e-7)
    assert (small.early_stop, large.early_stop) == (10, 35)
