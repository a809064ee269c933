"""The ResNet that a spec describes, under torchvision's names."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from encodercheck.weights.spec import ResNetSpec


class ResNet(nn.Module):
    """A ResNet of any width and depth that ends in the global average pool.

    Images (N, 3, H, W) become embeddings (N, ``spec.embedding_dim``). The blocks are torchvision's,
    and so are the names and the initial weights.
    """

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        self.spec = spec
        width, kernel = spec.stem_width, spec.stem_kernel
        self.conv1 = nn.Conv2d(
            3, width, kernel, stride=spec.stem_stride, padding=kernel // 2, bias=False
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if spec.maxpool else nn.Identity()
        for stage in range(len(spec.depths)):
            self.add_module(f"layer{stage + 1}", _stage(spec, stage))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Embed normalised images (N, 3, H, W) as (N, D)."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in range(len(self.spec.depths)):
            features = self.get_submodule(f"layer{stage + 1}")(features)
        pooled: Tensor = self.avgpool(features)
        return pooled.flatten(1)


def _stage(spec: ResNetSpec, stage: int) -> nn.Sequential:
    block = BasicBlock if spec.block == "basic" else Bottleneck
    inputs, outputs = spec.channels_into(stage), spec.channels_of(stage)
    stride = spec.strides[stage]
    shortcut = None
    if spec.has_downsample(stage):
        shortcut = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))
    first = partial(block, inputs, stride=stride, downsample=shortcut)
    further = [partial(block, outputs)] * (spec.depths[stage] - 1)
    return nn.Sequential(
        *(
            make(planes=spec.widths[stage], groups=spec.groups, base_width=spec.base_width)
            for make in (first, *further)
        )
    )
