"""Sketches of weights: copies are known, and what was made of an encoder is no copy of it."""

import copy

import models
import pytest
import torch
from torch import nn

from encodercheck.sketch import COPY, NUMBERS, cosine, is_copy, of_weights
from encodercheck.weights.resnet import ResNet


def network(seed=0):
    module = ResNet(models.SPEC)
    module.load_state_dict(models.state(seed))
    return module


def changed(module, change):
    """Return a copy with every parameter changed."""
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(change(parameter))
    return twin


def noise(share):
    generator = torch.Generator().manual_seed(3)

    def add(parameter):
        random = torch.randn(parameter.shape, generator=generator)
        return parameter + share * parameter.square().mean().sqrt() * random

    return add


COPIES = {
    "the same": lambda p: p,
    "half precision": lambda p: p.half().float(),
    "bfloat16": lambda p: p.bfloat16().float(),
    "8 bits": lambda p: (p / (p.abs().max() / 127 + 1e-9)).round() * (p.abs().max() / 127),
    "noise of a thousandth": noise(1e-3),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_known(name):
    module = network()
    assert is_copy(of_weights(module), of_weights(changed(module, COPIES[name])))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_what_was_trained_further_is_no_copy(share):
    module = network()
    further = of_weights(changed(module, noise(share)))
    assert 0.9 < cosine(of_weights(module), further) < COPY
    assert not is_copy(of_weights(module), further)


def test_other_weights_are_far_away():
    assert cosine(of_weights(network(0)), of_weights(network(1))) < 0.6


def test_a_sketch_is_of_length_one_and_free_of_names_and_order():
    one = nn.ModuleDict({"a": nn.Linear(100, 30), "b": nn.Linear(30, 7)})
    other = nn.ModuleList([one["b"], one["a"]])
    sketch = of_weights(one)
    assert len(sketch) == NUMBERS
    assert cosine(sketch, sketch) == pytest.approx(1)
    assert sum(number**2 for number in sketch) == pytest.approx(1, abs=1e-4)
    assert cosine(sketch, of_weights(other)) == pytest.approx(1, abs=1e-9)


def test_large_tensors_are_read_in_parts(monkeypatch):
    module = nn.Linear(1000, 3)
    whole = of_weights(module)
    monkeypatch.setattr("encodercheck.sketch.AT_ONCE", NUMBERS * 8)
    assert of_weights(module) == whole


def test_what_has_no_weights_to_speak_of_has_no_sketch():
    assert of_weights(nn.Flatten()) is None
    assert of_weights(nn.LayerNorm(64)) is None
    assert of_weights(changed(network(), lambda p: p * torch.nan)) is None
    assert not is_copy(None, None)
    assert not is_copy(None, of_weights(network()))
