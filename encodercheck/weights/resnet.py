"""The ResNet that a spec describes, under torchvision's names."""

from __future__ import annotations

from torch import Tensor, nn

from encodercheck.weights.spec import ResNetSpec


class ResNet(nn.Module):
    """A ResNet of any width and depth that ends in the global average pool.

    Images (N, 3, H, W) become embeddings (N, ``spec.embedding_dim``). The names are
    torchvision's; its blocks are not used, because to import torchvision takes as long as torch.
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

    def forward(self, images: Tensor) -> Tensor:
        """Embed normalised images (N, 3, H, W) as (N, D)."""
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in range(len(self.spec.depths)):
            features = self.get_submodule(f"layer{stage + 1}")(features)
        pooled: Tensor = self.avgpool(features)
        return pooled.flatten(1)


class _Block(nn.Module):
    """What both blocks of He et al. (CVPR 2016) share: the branch, the shortcut, and their sum."""

    relu: nn.Module
    downsample: nn.Module | None

    def forward(self, features: Tensor) -> Tensor:
        """Transform features (N, C, H, W)."""
        shortcut = features if self.downsample is None else self.downsample(features)
        summed: Tensor = self.relu(self.branch(features) + shortcut)
        return summed

    def branch(self, features: Tensor) -> Tensor:
        """Return what is added to the shortcut."""
        raise NotImplementedError


class _BasicBlock(_Block):
    def __init__(self, spec: ResNetSpec, stage: int, inputs: int, stride: int) -> None:
        super().__init__()
        width = spec.widths[stage]
        self.conv1 = _convolution(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _downsample(spec, stage, inputs, stride)

    def branch(self, features: Tensor) -> Tensor:
        features = self.relu(self.bn1(self.conv1(features)))
        branch: Tensor = self.bn2(self.conv2(features))
        return branch


class _Bottleneck(_Block):
    """The stride is on the 3x3 convolution, where torchvision has it."""

    def __init__(self, spec: ResNetSpec, stage: int, inputs: int, stride: int) -> None:
        super().__init__()
        outputs, inner = spec.channels_of(stage), spec.inner_width(spec.widths[stage])
        self.conv1 = _convolution(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = _convolution(inner, inner, 3, stride, groups=spec.groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = _convolution(inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(spec, stage, inputs, stride)

    def branch(self, features: Tensor) -> Tensor:
        features = self.relu(self.bn1(self.conv1(features)))
        features = self.relu(self.bn2(self.conv2(features)))
        branch: Tensor = self.bn3(self.conv3(features))
        return branch


def _downsample(spec: ResNetSpec, stage: int, inputs: int, stride: int) -> nn.Sequential | None:
    """Return the shortcut's convolution where one is needed: only ever in a stage's first block."""
    outputs = spec.channels_of(stage)
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    return nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )


def _stage(spec: ResNetSpec, stage: int) -> nn.Sequential:
    block = _BasicBlock if spec.block == "basic" else _Bottleneck
    inputs, outputs = spec.channels_into(stage), spec.channels_of(stage)
    first = block(spec, stage, inputs, spec.strides[stage])
    return nn.Sequential(
        first, *(block(spec, stage, outputs, 1) for _ in range(spec.depths[stage] - 1))
    )
