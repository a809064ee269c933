"""Small model files for tests, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from encodercheck.weights.resnet import ResNet
from encodercheck.weights.spec import ResNetSpec

SPEC = ResNetSpec(
    block="basic",
    depths=(1, 1, 1, 1),
    widths=(8, 16, 32, 64),
    stem_width=8,
    stem_kernel=3,
    stem_stride=2,
    maxpool=False,
)


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the random weights of a small ResNet whose embeddings differ from image to image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = ResNet(SPEC).train()
        with torch.no_grad():
            for _ in range(20):
                module(torch.rand(64, 3, 32, 32) * torch.rand(64, 3, 1, 1) * 4 - 1)
            # Untrained ReLU features point the same way; lower, they differ enough to be scanned.
            module.layer4[0].bn2.bias.fill_(-0.3)
    return {name: tensor.contiguous() for name, tensor in module.state_dict().items()}


def write(path: Path, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    """Write a model file that says its own architecture and preprocessing."""
    about = {
        "architecture": SPEC.to_dict(),
        "image_size": 32,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    }
    save_file(state() if tensors is None else tensors, path, {"encodercheck": json.dumps(about)})
    return path
