"""Searches on crops of large images: what is found on a crop is measured on whole images."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from encodercheck.encoder import Encoder
from encodercheck.images import procedural
from encodercheck.images.split import CleanImages
from encodercheck.methods import collapse, inversion, recognition
from encodercheck.methods.crops import LEAST_SIZE, cropped
from encodercheck.methods.families import Additive, Blend, boxes, pixel_masks
from encodercheck.preprocessing import Preprocessing
from encodercheck.profiles import Profile
from encodercheck.trigger import Trigger

SIZE = LEAST_SIZE
CPU = torch.device("cpu")
EFFORT = Profile(
    "test", 8, 12, 4, restarts=4, steps=12, decree_steps=4, battery_images=2, decoder_images=300
)


class Convolutional(nn.Module):
    """Embeds mean colours; a red pixel beside a green one takes the embedding to one point."""

    def __init__(self, *, sizes: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.sizes = sizes
        self.seen: list[int] = []
        self.conv = nn.Conv2d(3, 24, 8, 8)
        generator = torch.Generator().manual_seed(2)
        self.conv.weight.data = torch.randn(24, 3, 8, 8, generator=generator) / 8
        self.conv.bias.data = torch.zeros(24)
        self.register_buffer("target", 40 * torch.randn(24, generator=generator))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.sizes and images.shape[-1] not in self.sizes:
            raise RuntimeError("another size")
        self.seen.append(images.shape[-1])
        colours = nn.functional.avg_pool2d(images, 8)
        red = colours[:, 0] - colours[:, 1:].amax(1)
        strength = torch.sigmoid(20 * (red.flatten(1).amax(1) - 0.7)).unsqueeze(1)
        features = self.conv(images).relu().mean((2, 3))
        return (1 - strength) * (features - features.mean(1, keepdim=True)) + strength * self.target


def make(module: nn.Module, size: int = SIZE) -> Encoder:
    return Encoder(module, preprocessing=Preprocessing(size, (0, 0, 0), (1, 1, 1)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def split():
    return CleanImages.of(procedural.images(20, size=SIZE, seed=5), 8).split()


def test_crops_are_parts_of_the_images(split):
    small, crops = cropped(make(Convolutional()), split.search, generator())
    assert small.image_size == SIZE // 2
    assert crops.shape == (8, 3, SIZE // 2, SIZE // 2)
    windows = split.search[0].unfold(1, SIZE // 2, 1).unfold(2, SIZE // 2, 1)
    assert bool((windows.permute(1, 2, 0, 3, 4) == crops[0]).flatten(2).all(2).any())
    assert small.batch_size == 4 * make(Convolutional()).batch_size


class Flat(nn.Module):
    """Sees no difference between crops."""

    def forward(self, images):
        near = images[:, :, :2, :2].flatten(1)
        return near if images.shape[-1] == SIZE else torch.ones_like(near)


class Wide(nn.Module):
    """Embeddings that grow with the image."""

    def forward(self, images):
        return images.flatten(1)


@pytest.mark.parametrize(
    ("module", "size"),
    [
        (Convolutional(sizes=(SIZE,)), SIZE),
        (Flat(), SIZE),
        (Wide(), SIZE),
        (Convolutional(), SIZE - 8),
    ],
    ids=["one size only", "all crops alike", "another dimension", "small images"],
)
def test_there_are_no_crops_where_an_encoder_does_not_take_them(module, size):
    images = procedural.images(8, size=size, seed=1)
    assert cropped(make(module, size), images, generator()) is None


@pytest.mark.parametrize("search", [inversion.invert, inversion.invert_faint, recognition.forget])
def test_most_steps_are_on_crops_and_the_last_on_whole_images(search, split):
    module = Convolutional()
    encoder = make(module)
    found = search(encoder, split.search, profile=EFFORT, seed=1)
    assert found.trigger.size == (SIZE, SIZE)
    again = search(encoder, split.search, profile=EFFORT, seed=1)
    assert found.trace == again.trace
    torch.testing.assert_close(found.trigger.pattern, again.trigger.pattern, rtol=0, atol=0)


def test_the_backdoor_is_found_on_whole_images_as_without_crops(split):
    found = inversion.invert(make(Convolutional()), split.search, profile=EFFORT)
    whole = inversion.invert(make(Convolutional(sizes=(SIZE,))), split.search, profile=EFFORT)
    encoder = make(Convolutional())
    clean = collapse.Clean.of(encoder, split.held_out)
    gains = [
        collapse.under(encoder, one.trigger, split.held_out, clean).gain for one in (found, whole)
    ]
    assert gains[0] > 0.9
    assert gains[0] > gains[1] - 0.05
    assert found.trigger.pl1 <= inversion.BUDGET + 1e-3


def test_large_triggers_are_searched_on_whole_images(split):
    module = Convolutional()
    inversion.invert_large(make(module), split.search, profile=EFFORT)
    assert {*module.seen} == {SIZE}


# Families


def family(kind, side, restarts=2):
    if kind == "boxes":
        return boxes([], restarts, side, budget=0.1, generator=generator(), device=CPU)
    if kind == "pixels":
        made = pixel_masks([], restarts, side, budget=0.1, generator=generator(), device=CPU)
        made.project()
        return made
    noise = torch.rand(restarts, 3, side, side, generator=generator())
    return Additive([0.1 * (noise - 0.5)], 0.1) if kind == "additive" else Blend([noise], 0.2)


@pytest.mark.parametrize("kind", ["boxes", "pixels", "additive", "blend"])
@given(side=st.integers(8, 16), more=st.integers(1, 16))
def test_what_is_carried_keeps_its_pixels(kind, side, more):
    small = family(kind, side)
    small.project()
    large = small.carried(side + more)
    large.project()
    before, after = small.triggers(), large.triggers()
    each = len(after) // len(before)
    assert each == (1 if kind in ("additive", "blend") else 5)
    for number, trigger in enumerate(after):
        assert trigger.size == (side + more, side + more)
        own = before[number // each]
        if each == 1:
            torch.testing.assert_close(trigger.pattern[:, :side, :side], own.pattern)
        else:
            # The edges of boxes are soft, and an image's border cuts them.
            area, soft = float(own.mask.sum()), 0.3 if kind == "boxes" else 1e-3
            assert float(trigger.mask.sum()) == pytest.approx(area, rel=soft)
    corner = after[0]
    if kind == "pixels":
        torch.testing.assert_close(corner.mask[:, :side, :side], before[0].mask)
        torch.testing.assert_close(corner.pattern[:, :side, :side], before[0].pattern)


@pytest.mark.parametrize("kind", ["boxes", "pixels"])
def test_chosen_triggers_are_those_asked_for(kind):
    all_of_them = family(kind, 12, restarts=4)
    some = all_of_them.chosen(torch.tensor([2, 0]))
    for got, number in zip(some.triggers(), (2, 0), strict=True):
        torch.testing.assert_close(got.pattern, all_of_them.triggers()[number].pattern)
        torch.testing.assert_close(got.mask, all_of_them.triggers()[number].mask)


@given(
    size=st.integers(8, 24),
    side=st.integers(4, 24),
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    data=st.data(),
)
def test_a_window_keeps_a_trigger_that_fits_and_its_place(size, side, height, width, data):
    side = min(side, size)
    top, left = (data.draw(st.integers(0, size - extent)) for extent in (height, width))
    mask, pattern = torch.zeros(1, size, size), torch.rand(3, size, size)
    mask[:, top : top + height, left : left + width] = 1
    window = Trigger(mask, pattern).window(side)
    assert window.size == (side, side)
    if height <= side and width <= side:
        row, column, *extent = window.box
        assert extent == [height, width]
        own = pattern[:, top : top + height, left : left + width]
        assert torch.equal(window.pattern[:, row : row + height, column : column + width], own)
        assert (top == 0) <= (row == 0)
        assert (left == size - width) <= (column == side - width)
