"""Images as grids of patches: what is cut, hidden, compared and touched."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from encodercheck.methods.patches import MOST_DETAIL, PatchGrid

SEEDS = st.integers(0, 2**31)


@st.composite
def grids(draw):
    """Image sizes and grids, also of patches that do not divide the image."""
    size = draw(st.integers(8, 64))
    patch = draw(st.integers(max(1, size // 12), size // 2))
    return size, patch, PatchGrid.of(size, patch=patch)


def random(seed):
    return torch.Generator().manual_seed(seed)


def pictures(count, size, seed=0):
    return torch.rand(count, 3, size, size, generator=random(seed))


def reaches(grid, size, patch):
    """The pixels of an image that a patch's row or column is made of: first and beyond last."""
    return patch * size // grid.side, math.ceil((patch + 1) * size / grid.side)


@given(grids())
def test_a_grid_has_the_nearest_number_of_patches(made):
    size, patch, grid = made
    assert abs(grid.side - size / patch) <= 0.5
    assert grid.side >= 2
    assert grid.count == grid.side**2
    assert grid.detail == min(patch, MOST_DETAIL)
    assert grid.pixels == grid.side * grid.detail


@pytest.mark.parametrize(
    ("size", "side", "detail"), [(224, 8, 4), (64, 8, 4), (32, 8, 4), (16, 8, 2), (8, 8, 1)]
)
def test_a_patch_is_an_eighth_of_the_image_by_default(size, side, detail):
    assert PatchGrid.of(size) == PatchGrid(side, detail)


@pytest.mark.parametrize("patch", [-1, 0, 9, 16])
def test_fewer_than_two_patches_are_refused(patch):
    with pytest.raises(ValueError, match="choose 1 to 8"):
        PatchGrid.of(16, patch=patch)


def test_an_image_of_one_pixel_has_no_patches():
    with pytest.raises(ValueError, match="patches of 1 pixels"):
        PatchGrid.of(1)


@given(grids(), SEEDS)
def test_joining_undoes_cutting(made, seed):
    _, _, grid = made
    images = pictures(2, grid.pixels, seed)
    patches = grid.cut(images)
    assert patches.shape == (2, grid.count, 3 * grid.detail**2)
    assert torch.equal(grid.join(patches), images)


@given(grids(), SEEDS)
def test_patches_are_cut_row_by_row(made, seed):
    _, _, grid = made
    images = pictures(1, grid.pixels, seed)
    number = seed % grid.count
    top, left = (grid.detail * place for place in divmod(number, grid.side))
    patch = images[0, :, top : top + grid.detail, left : left + grid.detail]
    assert torch.equal(grid.cut(images)[0, number], patch.flatten())


@given(grids(), st.floats(0.001, 0.999), SEEDS)
def test_something_is_always_visible_and_something_hidden(made, ratio, seed):
    _, _, grid = made
    visible = grid.visible(ratio, 3, random(seed))
    assert visible.shape == (3, grid.count)
    assert set(visible.unique().tolist()) == {0.0, 1.0}
    shown = visible.sum(1).unique()
    assert len(shown) == 1
    exact = grid.count * (1 - ratio)
    if 1 <= exact <= grid.count - 1:
        assert exact - 1 < float(shown) <= exact + 1e-6


@pytest.mark.parametrize(
    ("ratio", "shown"), [(0.99, 1), (0.9, 6), (0.75, 16), (0.5, 32), (0.01, 63)]
)
def test_so_many_of_64_patches_are_visible(ratio, shown):
    assert PatchGrid(8, 2).visible(ratio, 5, random(0)).sum(1).tolist() == [shown] * 5


@given(SEEDS)
def test_the_generator_draws_what_is_visible_and_nothing_else_does(seed):
    grid = PatchGrid(8, 2)
    before = torch.random.get_rng_state()
    first, again = (grid.visible(0.9, 4, random(seed)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_patch_is_visible_at_times():
    seen = PatchGrid(8, 2).visible(0.9, 400, random(0)).mean(0)
    assert 0.02 < float(seen.min()) <= float(seen.max()) < 0.2


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_ratio_that_leaves_nothing_is_refused(ratio):
    with pytest.raises(ValueError, match="between 0 and 1"):
        PatchGrid(8, 2).visible(ratio, 1, random(0))


@given(grids(), SEEDS)
def test_shrinking_keeps_the_range(made, seed):
    size, _, grid = made
    images = pictures(2, size, seed)
    small = grid.shrink(images)
    assert small.shape == (2, 3, grid.pixels, grid.pixels)
    assert float(images.min()) - 1e-6 <= float(small.min())
    assert float(small.max()) <= float(images.max()) + 1e-6
    grey = torch.full((1, 3, size, size), 0.4)
    torch.testing.assert_close(grid.shrink(grey), torch.full_like(grid.shrink(grey), 0.4))


@given(st.integers(2, 8), st.integers(1, 8), SEEDS)
def test_shrinking_keeps_the_mean_where_patches_divide_the_image(side, factor, seed):
    grid = PatchGrid(side, 2)
    images = pictures(2, grid.pixels * factor, seed)
    small = grid.shrink(images)
    torch.testing.assert_close(small.mean((2, 3)), images.mean((2, 3)))


def test_images_of_the_decoded_size_are_left_as_they_are():
    images = pictures(2, 16)
    assert grid_of_16().shrink(images) is images


def grid_of_16():
    return PatchGrid(8, 2)


@given(grids(), SEEDS)
def test_errors_are_mean_squares_patch_by_patch(made, seed):
    _, _, grid = made
    images, others = pictures(2, grid.pixels, seed), pictures(2, grid.pixels, seed + 1)
    direct = (grid.cut(images) - grid.cut(others)).square().mean(2)
    torch.testing.assert_close(grid.errors(images, others), direct)
    assert not grid.errors(images, images).any()


@given(grids(), SEEDS)
def test_a_pixel_touches_exactly_the_patches_it_lies_in(made, seed):
    size, _, grid = made
    row, column = divmod(seed % size**2, size)
    mask = torch.zeros(1, size, size)
    mask[0, row, column] = 0.5
    inside = [
        [
            first <= place < beyond
            for first, beyond in (reaches(grid, size, i) for i in range(grid.side))
        ]
        for place in (row, column)
    ]
    expected = torch.tensor(inside[0]).unsqueeze(1) & torch.tensor(inside[1])
    assert torch.equal(grid.touched(mask, visible=0.05), expected.float().flatten())
    assert not grid.touched(mask, visible=0.5).any()


@given(grids(), SEEDS)
def test_untouched_patches_are_decoded_from_pixels_that_are_not_stamped(made, seed):
    size, _, grid = made
    images = pictures(1, size, seed)
    mask = torch.zeros(1, size, size)
    top, left = (int(i) for i in torch.randint(size, (2,), generator=random(seed)))
    mask[:, top : top + 5, left : left + 5] = 1
    untouched = grid.spread(1 - grid.touched(mask, visible=0.05).unsqueeze(0))
    before, after = grid.shrink(images), grid.shrink(images * (1 - mask) + (1 - images) * mask)
    assert torch.equal(before * untouched, after * untouched)


@given(grids(), SEEDS)
def test_spreading_gives_every_pixel_what_its_patch_has(made, seed):
    _, _, grid = made
    assume(grid.pixels < 64)
    weights = torch.rand(2, grid.count, generator=random(seed))
    spread = grid.spread(weights)
    assert spread.shape == (2, 1, grid.pixels, grid.pixels)
    cut = grid.cut(spread.expand(-1, 3, -1, -1))
    assert torch.equal(cut, weights.unsqueeze(2).expand_as(cut))
