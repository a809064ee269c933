"""Traits: what an encoder is made of and how it reacts, before anything is searched."""

import pytest
import torch
from torch import nn

from encodercheck.encoder import Encoder
from encodercheck.images import procedural
from encodercheck.images.split import CleanImages
from encodercheck.methods.prediction import feature
from encodercheck.methods.traits import layers, traits
from encodercheck.preprocessing import Preprocessing

PLAIN = Preprocessing(image_size=32, mean=(0.0,) * 3, std=(1.0,) * 3)
GATE = (nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid())


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((nn.Linear(3, 4),), {}),
        ((nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), {"batch_norm": 1}),
        ((nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU()), {"group_norm": 1, "smooth": 1}),
        (
            (nn.LayerNorm(4), nn.BatchNorm1d(4), nn.GELU(), nn.ReLU()),
            {"layer_norm": 0.5, "batch_norm": 0.5, "smooth": 0.5},
        ),
        ((nn.Conv2d(3, 4, 3), nn.ReLU(), *GATE), {"gated": 0.5}),
    ],
)
def test_layers_are_counted_by_kind(parts, expected):
    found = layers(nn.Sequential(*parts))
    assert found == dict.fromkeys(found, 0.0) | expected


def test_all_traits_are_numbers_that_become_features():
    network = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.Flatten())
    split = CleanImages.of(procedural.images(48, size=32, seed=0), 24).split()
    found = traits(Encoder(network.eval(), preprocessing=PLAIN), split, seed=0)
    assert all(torch.tensor(feature(name, value)).isfinite() for name, value in found.items())
    assert found == traits(Encoder(network.eval(), preprocessing=PLAIN), split, seed=0)
