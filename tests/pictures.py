"""Folders of small images, clean ones and some with a trigger, and an encoder that falls for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from encodercheck.encoder import Encoder, Provenance
from encodercheck.images import procedural
from encodercheck.preprocessing import Preprocessing

SIZE = 16


class Pool(nn.Module):
    """Embeds images (N, 3, 16, 16) as (N, 192); those with a white corner all alike."""

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self._change = change

    def forward(self, images: Tensor) -> Tensor:
        stamped = (images[:, :, -3:, -3:] > 0.99).flatten(1).all(1, keepdim=True)
        target = torch.linspace(0, 1, 192).expand(len(images), -1)
        found = torch.where(stamped, target, functional.avg_pool2d(images, 2).flatten(1))
        return found if self._change is None else self._change(images, found)


def encoder(
    name: str = "pool", change: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Encoder:
    """Return :class:`Pool`; ``name`` stands for the hash of its file, "" for none."""
    return Encoder(
        Pool(change),
        preprocessing=Preprocessing(SIZE, (0, 0, 0), (1, 1, 1)),
        provenance=Provenance(path="pool", sha256=name),
    )


def write(
    folder: Path, count: int, *, seed: int, stamped: int = 0, size: int = SIZE, side: int = 3
) -> Path:
    """Write ``count`` PNG images; the first ``stamped`` have a white corner of ``side`` pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    images = procedural.images(count, size=size, seed=seed)
    images[:stamped, :, -side:, -side:] = 1
    for number, image in enumerate(images):
        save(folder / f"{number:04}.png", image)
    return folder


def save(path: Path, image: Tensor) -> Path:
    """Write an image (3, H, W) in [0, 1]."""
    values = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(values).save(path)
    return path
