"""The statistics that the benchmarks compare with nulls: what they mean, and their tables."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import alternatives, early_stopping
from benchmarks.alternatives import anomaly, best_limit, clusters, whitened
from encodercheck.encoder import Encoder
from encodercheck.harness.state import ScanState
from encodercheck.images import procedural
from encodercheck.images.split import CleanImages
from encodercheck.preprocessing import Preprocessing
from encodercheck.profiles import Profile

EFFORT = Profile(
    "toy", 24, 24, 6, restarts=4, steps=4, decree_steps=2, battery_images=4, decoder_images=300
)


@pytest.fixture
def state() -> ScanState:
    encoder = Encoder(torch.nn.Flatten(), preprocessing=Preprocessing(16, (0, 0, 0), (1, 1, 1)))
    images = CleanImages.of(procedural.images(48, size=16, seed=3), EFFORT.search)
    return ScanState(encoder, images, 7, EFFORT, image_set={"source": "procedural"})


@given(st.lists(st.floats(0, 0.9), min_size=5, max_size=12), st.floats(0, 0.9), st.floats(0, 0.09))
def test_the_further_the_free_search_goes_the_stranger(targeted, free, more):
    assert anomaly(free, targeted) <= anomaly(free + more, targeted)


def test_a_free_search_like_the_targeted_ones_is_no_anomaly():
    assert anomaly(0.5, [0.4, 0.5, 0.6]) == 0
    assert anomaly(0.99, [0.4, 0.5, 0.6]) > 10


@given(st.integers(0, 2**31), st.floats(0.1, 10))
def test_whitening_undoes_any_scale_of_the_axes(seed, scale):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randn(200, 8, generator=generator, dtype=torch.float64)
    stamped = 0.1 * torch.randn(50, 8, generator=generator, dtype=torch.float64) + 4
    axes = torch.rand(8, generator=generator, dtype=torch.float64) + 0.5
    plain = whitened(clean[:100], clean[100:], stamped)
    stretched = whitened(*(scale * axes * z for z in (clean[:100], clean[100:], stamped)))
    assert stretched == pytest.approx(plain, rel=1e-3)
    shift, spread = plain
    assert shift > 1
    assert spread > 2


def test_clusters_are_unit_vectors_in_the_middle_of_their_own():
    generator = torch.Generator().manual_seed(0)
    middles = torch.eye(3)
    noisy = middles.repeat(20, 1) + 0.05 * torch.randn(60, 3, generator=generator)
    unit = torch.nn.functional.normalize(noisy, dim=1)
    found = clusters(unit, 6, generator)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(6))
    assert float((found @ middles.T).amax(1).min()) > 0.95


def test_the_best_limit_lies_in_the_widest_gap():
    rows = [{"x": value, "kind": "clean"} for value in (0.1, 0.2, 0.3)]
    rows += [{"x": value, "kind": "white"} for value in (0.8, 0.9)]
    assert best_limit(rows, "x") == pytest.approx(0.55)


def test_an_encoder_is_measured_and_shown(state):
    key = {"architecture": "small ViT", "seed": 1}
    rows = [
        {**key, "kind": kind, "reported": reported, **alternatives.measure(state)}
        for kind in ("clean", "white")
        for reported in (True, False)
    ]
    assert len(rows[0]["targeted"]) == alternatives.TARGETS
    assert rows[0]["anomaly"] == rows[1]["anomaly"]
    table = alternatives.table(rows, [])
    assert len(table) == 2 + len(alternatives.STATISTICS) + 1
    assert all(line.count("|") == table[0].count("|") for line in table)


def test_stopped_searches_are_measured_beside_full_ones(state):
    row = {"kind": "clean", "reported": True, **early_stopping.measure(state)}
    for search in row["searches"].values():
        assert search["full"]["ended"] == "exhausted"
        assert search["stopped"]["steps"] <= search["full"]["steps"]
    table = early_stopping.table([row])
    assert len(table) == 2 + len(early_stopping.SEARCHES)
    assert early_stopping.table([]) == ["Not measured."]
