"""EC001's measurements: lengths and differences, whatever the scale."""

import math

import models
import pytest
import torch

import encodercheck
from encodercheck.methods import integrity
from encodercheck.report import Outcome

SCALES = (1e-30, 1e-16, 1.0, 1e13, 1e30)


def _pair(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(4, 16, generator=generator)
    second = first + 1e-3 * torch.randn(4, 16, generator=generator)
    return first * scale, second * scale


@pytest.mark.parametrize("scale", SCALES)
def test_differences_do_not_change_with_the_scale(scale):
    expected = integrity.difference(*_pair())
    assert 5e-4 < expected < 5e-3
    assert integrity.difference(*_pair(scale)) == pytest.approx(expected, rel=1e-3)


def test_the_largest_difference_counts_and_is_relative_to_the_first():
    first = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert integrity.difference(first, torch.tensor([[3.0, 4.5], [1.2, 0.0]])) == pytest.approx(0.2)
    assert integrity.difference(first, first) == 0


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([[0.0, 0.0]], [[0.0, 0.0]], 0.0),
        ([[0.0, 0.0]], [[1e-40, 0.0]], math.inf),
        ([[1e-40, 0.0]], [[0.0, 0.0]], 1.0),
        ([[1.0, math.inf], [1.0, 1.0]], [[1.0, math.inf], [1.0, 1.0]], math.nan),
        ([[1.0, math.nan], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]], math.nan),
    ],
)
def test_differences_of_what_has_no_direction(first, second, expected):
    found = integrity.difference(torch.tensor(first), torch.tensor(second))
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("scale", "zero", "infinite"),
    [(1e-30, 4, 0), (1e-21, 4, 0), (1e-16, 0, 0), (1.0, 0, 0), (1e17, 0, 0), (1e20, 0, 4)],
)
def test_lengths_that_float32_cannot_hold_are_counted(scale, zero, infinite):
    embeddings, _ = _pair(scale)
    assert integrity.zero_embeddings(embeddings) == zero
    assert integrity.infinite_norms(embeddings) == infinite


def test_one_dead_embedding_among_others_is_counted():
    embeddings = torch.eye(5)
    embeddings[2] = 0
    embeddings[3, 0] = math.inf
    embeddings[4, 0] = math.nan
    assert integrity.zero_embeddings(embeddings) == 1
    assert integrity.infinite_norms(embeddings) == 1


@pytest.mark.parametrize(
    ("scale", "measured"),
    [(0.0, "zero_embeddings"), (1e-30, "zero_embeddings"), (1e25, "infinite_norms")],
)
def test_an_encoder_without_usable_lengths_fails(tmp_path, scale, measured):
    tensors = models.state()
    for name in ("weight", "bias"):
        for part in ("bn2", "downsample.1"):
            tensors[f"layer4.0.{part}.{name}"] = tensors[f"layer4.0.{part}.{name}"] * scale
    path = models.write(tmp_path / "model.safetensors", tensors)
    report = encodercheck.scan(path, profile="quick", keyword="EC001", device="cpu")
    (finding,) = report.findings
    assert report.exit_code == 1
    beyond = [m.name for m in finding.measurements if m.outcome is Outcome.FAILED]
    assert beyond == [measured]


def test_a_usual_encoder_passes(tmp_path):
    path = models.write(tmp_path / "model.safetensors")
    report = encodercheck.scan(path, profile="quick", keyword="EC001", device="cpu")
    assert report.exit_code == 0
    assert len(report.findings[0].measurements) == 6
