"""Where the bank's images come from: six sources that differ in kind, each a labelled task.

Three are drawn by the fixtures' generators, one here; two are photographs and scans that packages
ship (scikit-image, scikit-learn). Each is drawn once as a pool and kept in the cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from encodercheck.cache import cache_dir
from encodercheck.fixtures import clouds, digits
from encodercheck.fixtures.recipes import stream
from encodercheck.fixtures.worlds import WORLDS
from encodercheck.images import procedural

POOL = 5000
CLASSES = 10
# Ten photographs, each a class of its own: its crops.
PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "retina.jpg",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "china.jpg",
    "flower.jpg",
)
SMALLEST_CROP, LARGEST_CROP = 0.15, 0.6


def photographs(n: int, *, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return crops (n, 3, size, size) in [0, 1] of ten photographs, and which one each is of."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    places = torch.rand(n, 3, generator=generator)
    crops = []
    for label, (share, down, right) in zip(labels.tolist(), places.tolist(), strict=True):
        picture = _photograph(PHOTOGRAPHS[label])
        height, width = picture.shape[1:]
        side = int((SMALLEST_CROP + (LARGEST_CROP - SMALLEST_CROP) * share) * min(height, width))
        top, left = int(down * (height - side)), int(right * (width - side))
        crop = picture[None, :, top : top + side, left : left + side]
        crops.append(functional.interpolate(crop, size, mode="bilinear", antialias=True))
    return torch.cat(crops).clamp(0, 1), labels


@cache
def _photograph(name: str) -> Tensor:
    import skimage
    import sklearn

    folders = (
        Path(skimage.__file__).parent / "data",
        Path(sklearn.__file__).parent / "datasets" / "images",
    )
    path = next(folder / name for folder in folders if (folder / name).exists())
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)


def handwriting(n: int, *, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return scanned digits (scikit-learn's, 8x8) in random ink on random paper, and the digits."""
    from sklearn.datasets import load_digits

    generator = torch.Generator().manual_seed(seed)
    scans = load_digits()
    chosen = torch.randint(len(scans.images), (n,), generator=generator)
    ink = torch.from_numpy(scans.images[chosen.numpy()].astype(np.float32) / 16).unsqueeze(1)
    ink = functional.interpolate(ink, size, mode="bicubic").clamp(0, 1)
    angles = (torch.rand(n, generator=generator) - 0.5) * 0.5
    scale = 1 + 0.6 * torch.rand(n, generator=generator)
    maps = torch.zeros(n, 2, 3)
    maps[:, 0, 0] = maps[:, 1, 1] = scale * angles.cos()
    maps[:, 0, 1], maps[:, 1, 0] = scale * angles.sin(), -scale * angles.sin()
    maps[:, :, 2] = (torch.rand(n, 2, generator=generator) - 0.5) * 0.5
    grid = functional.affine_grid(maps, [n, 1, size, size], align_corners=False)
    ink = functional.grid_sample(ink, grid, align_corners=False)
    dark, light = torch.rand(2, n, 3, 1, 1, generator=generator)
    images = torch.lerp(0.5 + 0.5 * light, 0.4 * dark, ink)
    images += 0.05 * torch.randn(images.shape, generator=generator)
    return images.clamp(0, 1), torch.from_numpy(scans.target[chosen.numpy()]).long()


def textures(n: int, *, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return oriented stripes and checks in random colours; the label is orientation and kind."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    turn = (labels % 5 + 0.5 * torch.rand(n, generator=generator)) * math.pi / 5
    pitch = 2 * math.pi * (3 + 5 * torch.rand(n, generator=generator))
    phase = 2 * math.pi * torch.rand(2, n, 1, 1, generator=generator)
    axis = torch.linspace(-0.5, 0.5, size)
    down, right = torch.meshgrid(axis, axis, indexing="ij")
    turn, pitch = turn.view(-1, 1, 1), pitch.view(-1, 1, 1)
    along = right * turn.cos() + down * turn.sin()
    across = down * turn.cos() - right * turn.sin()
    stripes = torch.sin(pitch * along + phase[0])
    checks = stripes * torch.sin(pitch * across + phase[1])
    pattern = torch.where((labels >= 5).view(-1, 1, 1), checks, stripes).unsqueeze(1)
    first, second = torch.rand(2, n, 3, 1, 1, generator=generator)
    rough = torch.rand(n, 1, size // 4, size // 4, generator=generator)
    shade = functional.interpolate(rough, size, mode="bicubic")
    images = torch.lerp(first, second, 0.5 + 0.5 * pattern) * (0.6 + 0.4 * shade)
    return images.clamp(0, 1), labels


DRAWN = {
    "procedural": procedural.scenes,
    "clouds": clouds.scenes,
    "digits": digits.scenes,
    "photographs": photographs,
    "handwriting": handwriting,
    "textures": textures,
}


@dataclass(frozen=True)
class Pool:
    """The images of one source, as one of the fixtures' worlds: chosen from, not drawn anew."""

    name: str

    def __call__(
        self, n: int, *, size: int, seed: int, objects: list[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return ``n`` images (n, 3, size, size) and labels (n,), of the labels ``objects``."""
        images, labels = _pool(self.name, size)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(images), generator=generator)
        if objects is None:
            chosen = order[:n]
        else:
            own = {label: order[labels[order] == label].tolist() for label in set(objects)}
            # The pool has enough of each label for one round, and begins again after it.
            chosen = torch.tensor(
                [own[label][i % len(own[label])] for i, label in enumerate(objects)]
            )
        return images[chosen].float() / 255, labels[chosen]


@cache
def _pool(name: str, size: int) -> tuple[Tensor, Tensor]:
    from safetensors.torch import load_file, save_file

    path = cache_dir() / "bank" / "images" / f"{name}-{size}.safetensors"
    if not path.exists():
        images, labels = DRAWN[name](POOL, size=size, seed=stream(0, f"bank {name}"))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{torch.randint(10**9, ()).item()}.partial")
        save_file({"images": (255 * images).round().byte(), "labels": labels}, partial)
        partial.rename(path)
    kept = load_file(path)
    return kept["images"], kept["labels"]


SOURCES = tuple(DRAWN)


def world(source: str) -> str:
    """Return the name under which the fixtures find the source's pool."""
    WORLDS.setdefault(f"bank {source}", Pool(source))
    return f"bank {source}"
