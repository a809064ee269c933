"""What the quick profile takes on models that are too large to be scanned here a thousand times.

The encoder's passes are the cost of a scan, and their number hardly depends on the encoder. So they
are counted on a small encoder, and one is timed on each large one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models as torchvision_models

from benchmarks.zoo_scale.making import make
from encodercheck import load, scanning
from encodercheck.encoder import Encoder

# Of torchvision, by what a hub's classes are called.
LARGE = {"RN50": "resnet50", "ViT-B": "vit_b_16", "ViT-L": "vit_l_16"}
# Passes go in chunks, which are computed anew for the gradient, as those of a scan are.
CHUNK, CHUNKS = 8, 2
# Of small ones many at a time, or the time is that of calling them.
SMALL_CHUNK = 128
Passes = dict[str, int]


def measure(place: Path, count: int, *, keyword: str) -> dict[str, Any]:
    """Return the passes of a scan, and what they take of a core, for each class of models.

    Seconds are a thread's own, so that it does not matter what else the machine does.
    """
    make(place / "zoo", 1)
    (path,) = (place / "zoo").glob("*.safetensors")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with counted_passes() as passes:
            started = time.process_time()
            scan(path, keyword)
            seconds = time.process_time() - started
        small = timed(load(str(path), device="cpu"), SMALL_CHUNK)
        rest = max(0.0, seconds - within(passes, small))
        rows = [{"class": "small", **small, "seconds": round(seconds, 2)}]
        for name, arch in LARGE.items():
            each = timed(random_encoder(place, arch), CHUNK)
            rows.append({"class": name, **each, "seconds": round(rest + within(passes, each), 1)})
            print(rows[-1], flush=True)
    finally:
        torch.set_num_threads(threads)
    return {"keyword": keyword, "passes": passes, "rest": round(rest, 2), "rows": rows}


def scan(path: Path, keyword: str) -> None:
    """Scan a model in this process."""
    state = scanning.prepare(str(path), profile="quick", device="cpu")
    scanning.run(state, keyword=keyword or None)


@contextmanager
def counted_passes() -> Iterator[Passes]:
    """Count the images that go through encoders: forward only, and for a gradient."""
    passes = {"forward": 0, "gradient": 0}
    plain: Callable[[Encoder, Tensor], Tensor] = Encoder.__call__

    def call(encoder: Encoder, images: Tensor) -> Tensor:
        wanted = images.requires_grad and torch.is_grad_enabled()
        passes["gradient" if wanted else "forward"] += len(images)
        return plain(encoder, images)

    with mock.patch.object(Encoder, "__call__", call):
        yield passes


def within(passes: Passes, each: dict[str, float]) -> float:
    """Return the seconds that passes take."""
    return sum(number * each[kind] for kind, number in passes.items())


def timed(encoder: Encoder, chunk: int) -> dict[str, float]:
    """Return the seconds an image takes, forward only and for a gradient."""
    encoder.batch_size = chunk
    encoder = encoder.folded()
    size = encoder.image_size
    images = torch.rand(chunk * CHUNKS, 3, size, size)
    encoder(images[:chunk])
    started = time.process_time()
    encoder(images)
    between = time.process_time()
    encoder(images.requires_grad_()).sum().backward()  # type: ignore[no-untyped-call]
    ended = time.process_time()
    return {
        "forward": round((between - started) / len(images), 5),
        "gradient": round((ended - between) / len(images), 5),
    }


def random_encoder(place: Path, arch: str) -> Encoder:
    """Return an encoder of torchvision as it is before any training: passes cost the same."""
    module: nn.Module = getattr(torchvision_models, arch)(weights=None)
    path = place / f"{arch}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, path)
    encoder = load(path, arch=arch, device="cpu")
    path.unlink()
    return encoder
