"""Models of a fixture's size: certified clean ones, and variations of one of them by seeds."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from encodercheck.cache import cache_dir
from encodercheck.weights.header import read_header

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import models

MOST_CERTIFIED = 4


def make(folder: Path, count: int) -> int:
    """Write the models that are not there yet; return how many of all are certified fixtures."""
    folder.mkdir(parents=True, exist_ok=True)
    found = clean()
    base = load_file(found[0]) if found else models.state()
    about = read_header(found[0]).metadata if found else None
    for number in range(count):
        path = folder / f"m{number:05}.safetensors"
        if path.exists():
            continue
        # Whole, or not there: who makes them may be stopped.
        part = path.with_suffix(".part")
        if number < len(found):
            part.write_bytes(found[number].read_bytes())
        elif about is None:
            models.write(part, varied(base, number))
        else:
            save_file(varied(base, number), part, about)
        part.rename(path)
    return min(len(found), count)


def clean() -> list[Path]:
    """Return certified clean encoders that are in the cache; none is built for this."""
    paths = sorted((cache_dir() / "fixtures").glob("clean-*/model.safetensors"))
    found = [path for path in paths if path.with_name("certificate.json").exists()]
    return found[:MOST_CERTIFIED]


def varied(tensors: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Return weights that are a little different, by a seed."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor * (1 + 0.01 * torch.randn(tensor.shape, generator=generator))
        if tensor.is_floating_point() and tensor.ndim > 1
        else tensor.clone()
        for name, tensor in tensors.items()
    }
