"""The bank's architectures: sixteen families, each from narrow to wide, and two real ones.

``build(family, size, generator)`` draws widths and depths; weights come from torch's current global
generator, as the libraries initialise them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import timm
import torch
from timm.models.convnext import ConvNeXt
from timm.models.mlp_mixer import MlpMixer
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from benchmarks.bank.pretrained import efficientnet_lite, nude_net, open_nsfw
from encodercheck.fixtures.network import new_network
from encodercheck.fixtures.recipes import ResNet

# A norm from its number of channels.
Norm = Callable[[int], nn.Module]


def group_norm(channels: int) -> nn.Module:
    """Return group normalisation in groups of at most eight channels."""
    return nn.GroupNorm(max(1, channels // 8), channels)


class Residual(nn.Module):
    """A residual block: ``before`` normalises first (He et al., 2016), else after (2015)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        norm: Norm,
        act: Callable[[], nn.Module],
        *,
        before: bool = False,
    ) -> None:
        super().__init__()
        first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        layers = (
            [norm(inputs), act(), first, norm(outputs), act(), second]
            if before
            else [first, norm(outputs), act(), second, norm(outputs)]
        )
        self.body = nn.Sequential(*layers)
        same = stride == 1 and inputs == outputs
        self.short = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.end = nn.Identity() if before else act()

    def forward(self, x: Tensor) -> Tensor:
        """Add the block to its input."""
        return self.end(self.short(x) + self.body(x))


class Squeeze(nn.Module):
    """Squeeze and excitation (Hu et al., 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(4, channels // 4)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.SiLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels."""
        return x * self.gate(x)


class Inverted(nn.Module):
    """An inverted bottleneck (Sandler et al., 2018), with or without squeeze and excitation."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, act: Callable[[], nn.Module], *, squeeze: bool
    ) -> None:
        super().__init__()
        hidden = 3 * inputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            act(),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            act(),
            Squeeze(hidden) if squeeze else nn.Identity(),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Add the block to its input where shapes allow."""
        return x + self.body(x) if self.same else self.body(x)


def pooled(*parts: nn.Module) -> nn.Module:
    """Return the parts in a row, then the mean over places."""
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def residuals(
    widths: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    stem_stride: int = 1,
    norm: Norm,
    act: Callable[[], nn.Module],
    before: bool = False,
) -> nn.Module:
    """Return a residual network with a 3x3 stem and one block a width."""
    stem = [nn.Conv2d(3, widths[0], 3, stem_stride, 1, bias=False)]
    if not before:
        stem += [norm(widths[0]), act()]
    inputs = (widths[0], *widths)
    blocks = [
        Residual(i, o, s, norm, act, before=before)
        for i, o, s in zip(inputs, widths, strides, strict=False)
    ]
    tail = [norm(widths[-1]), act()] if before else []
    return pooled(*stem, *blocks, *tail)


RELU = partial(nn.ReLU, inplace=False)


def narrow_resnet(draw: random.Random, size: int) -> nn.Module:
    return new_network(ResNet(width=draw.choice((8, 12, 16, 24, 32)), stem_stride=2))


def wide_resnet(draw: random.Random, size: int) -> nn.Module:
    block = "basic" if draw.random() < 0.7 else "bottleneck"
    return new_network(ResNet(width=draw.choice((8, 12)), stem_stride=size // 32, block=block))


def deep_resnet(draw: random.Random, size: int) -> nn.Module:
    depths = draw.choice(((2, 2, 2, 2), (2, 3, 4, 2), (1, 2, 2, 1)))
    return new_network(ResNet(width=draw.choice((8, 12, 16)), stem_stride=2, depths=depths))


def flat_resnet(draw: random.Random, size: int) -> nn.Module:
    width, depth = draw.choice((12, 16, 24)), draw.choice((2, 3))
    return residuals(
        (width,) * depth, (1,) * depth, stem_stride=2 * size // 32, norm=nn.BatchNorm2d, act=RELU
    )


def preactivation(draw: random.Random, size: int) -> nn.Module:
    width = draw.choice((12, 16, 24, 32))
    widths = (width, 2 * width, 4 * width, 4 * width)
    return residuals(
        widths, (1, 2, 2, 2), stem_stride=2, norm=nn.BatchNorm2d, act=RELU, before=True
    )


def group_norm_resnet(draw: random.Random, size: int) -> nn.Module:
    width = draw.choice((16, 24, 32))
    widths = (width, 2 * width, 4 * width)
    act = draw.choice((RELU, nn.GELU, nn.SiLU))
    return residuals(widths, (1, 2, 2), stem_stride=2, norm=group_norm, act=act)


def vgg(draw: random.Random, size: int, *, norm: bool) -> nn.Module:
    width = draw.choice((16, 24, 32, 48))
    parts: list[nn.Module] = []
    inputs = 3
    for outputs, pool in ((width, 1), (width, 2), (2 * width, 1), (2 * width, 2), (4 * width, 2)):
        parts += [nn.Conv2d(inputs, outputs, 3, 2 if not parts else 1, 1, bias=not norm)]
        parts += [nn.BatchNorm2d(outputs)] if norm else []
        parts += [nn.ReLU()]
        parts += [nn.MaxPool2d(2)] if pool == 2 else []
        inputs = outputs
    for part in parts:
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    return pooled(*parts)


def mobile(draw: random.Random, size: int, *, squeeze: bool) -> nn.Module:
    width = draw.choice((8, 12, 16, 24))
    act = nn.SiLU if squeeze else nn.ReLU6
    outputs = 8 * width
    stem = [nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), act()]
    plan = ((width, 1), (2 * width, 2), (2 * width, 1), (4 * width, 2), (4 * width, 1))
    blocks, inputs = [], width
    for out, stride in plan:
        blocks.append(Inverted(inputs, out, stride, act, squeeze=squeeze))
        inputs = out
    head = [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), act()]
    return pooled(*stem, *blocks, *head)


def convnext(draw: random.Random, size: int) -> nn.Module:
    width = draw.choice((12, 16, 24))
    return ConvNeXt(
        num_classes=0,
        depths=draw.choice(((1, 1, 1, 1), (1, 1, 2, 1))),
        patch_size=size // 16,
        dims=(width, 2 * width, 4 * width, 4 * width),
        drop_path_rate=0.0,
    )


def vit(draw: random.Random, size: int, *, token: bool) -> nn.Module:
    width = draw.choice((32, 48, 64, 96))
    return VisionTransformer(
        img_size=size,
        patch_size=size // 8,
        num_classes=0,
        embed_dim=width,
        depth=draw.choice((2, 3, 4)),
        num_heads=draw.choice((2, 4)),
        mlp_ratio=2.0,
        class_token=token,
        global_pool="token" if token else "avg",
    )


def mixer(draw: random.Random, size: int) -> nn.Module:
    return MlpMixer(
        num_classes=0,
        img_size=size,
        patch_size=size // 8,
        num_blocks=draw.choice((2, 3, 4)),
        embed_dim=draw.choice((32, 48, 64, 96)),
    )


def swin(draw: random.Random, size: int) -> nn.Module:
    return SwinTransformer(
        img_size=size,
        patch_size=size // 16,
        num_classes=0,
        embed_dim=draw.choice((24, 36, 48)),
        depths=draw.choice(((1, 1), (2, 2), (1, 2))),
        num_heads=(2, 4),
        window_size=4,
        mlp_ratio=2.0,
        drop_path_rate=0.0,
    )


# timm's smallest, whose first stages shrink 64 pixels to two.
SMALLEST = ("lcnet_035", "mobilenetv3_small_050", "tinynet_e", "test_byobnet", "test_efficientnet",
            "test_resnet", "test_convnext2", "test_efficientnet_gn", "regnetx_002")  # fmt: skip


def smallest(draw: random.Random, size: int) -> nn.Module:
    return timm.create_model(draw.choice(SMALLEST), num_classes=0)


FAMILIES: dict[str, Callable[[random.Random, int], nn.Module]] = {
    "narrow ResNet": narrow_resnet,
    "wide ResNet": wide_resnet,
    "deep ResNet": deep_resnet,
    "ResNet without downsampling": flat_resnet,
    "pre-activation ResNet": preactivation,
    "GroupNorm ResNet": group_norm_resnet,
    "VGG with BatchNorm": partial(vgg, norm=True),
    "VGG without normalisation": partial(vgg, norm=False),
    "MobileNet-like": partial(mobile, squeeze=False),
    "EfficientNet-like": partial(mobile, squeeze=True),
    "ConvNeXt-like": convnext,
    "ViT with class token": partial(vit, token=True),
    "ViT without class token": partial(vit, token=False),
    "MLP-Mixer": mixer,
    "Swin-like": swin,
    "timm's smallest": smallest,
    "EfficientNet-Lite1": lambda draw, size: efficientnet_lite(1),
    "EfficientNet-Lite2": lambda draw, size: efficientnet_lite(2),
    "ResNet of OpenNSFW": lambda draw, size: open_nsfw(),
    "YOLO of NudeNet": lambda draw, size: nude_net(),
}


def build(family: str, size: int, *, seed: int) -> nn.Module:
    """Return an untrained encoder of a family for ``size`` x ``size`` pixels: (N, D) embeddings."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FAMILIES[family](random.Random(seed), size)
