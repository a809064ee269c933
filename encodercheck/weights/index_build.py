"""Make the index of known image towers: ``python -m encodercheck.weights.index_build``.

Every name that torchvision, timm and open_clip know is built on the meta device, without its
classifier. Names whose towers have the same tensors are then given the same random weights and the
same images: those that agree compute the same function, the others are what the index calls
ambiguous. It takes about half an hour on two cores, most of it for the large towers.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encodercheck.errors import ConfigError
from encodercheck.weights import index
from encodercheck.weights.build import (
    NAMES,
    build,
    computes_on_meta,
    joined,
    library,
    sources,
)
from encodercheck.weights.index import SIZE_OPTIONS, Entry, Shapes
from encodercheck.weights.match import UNUSED
from encodercheck.weights.metadata import LIBRARIES

DISTRIBUTIONS = {"torchvision": "torchvision", "timm": "timm", "open_clip": "open_clip_torch"}
# Two float32 computations of the same function differ by less, relative to the largest feature.
TOLERANCE = 1e-4
# Below this share of the features' size, images do not matter and nothing is proven.
LEAST_VARIATION = 1e-4
# Parameters. A larger tower takes more than 16 GB with its activations; unproven, it is taken to
# compute something else than its namesakes.
LARGEST = 3_000_000_000
POOL = 1_000_003


def main() -> None:
    """Build the index, and write it where the package looks for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=index.PATH)
    out = parser.parse_args().out
    started = time.monotonic()
    entries = survey()
    say(f"{len(entries)} towers, {time.monotonic() - started:.0f} s")
    entries = classify(entries)
    versions = {name: metadata.version(DISTRIBUTIONS[name]) for name in LIBRARIES}
    index.save(entries, versions, out)
    say(f"{out}: {out.stat().st_size / 1e6:.2f} MB, {time.monotonic() - started:.0f} s")


def survey() -> list[Entry]:
    """Return an entry for every name of the three libraries."""
    entries = []
    for owner in LIBRARIES:
        for name in NAMES[owner]():
            entries.append(entry_of(f"{owner}:{name}"))
            if len(entries) % 100 == 0:
                say(f"{len(entries)} towers built, at {name}")
    return entries


def entry_of(arch: str) -> Entry:
    """Return the entry of one name, its family and its function still to come."""
    module, preprocessing = build(arch)
    shapes = shapes_of(module)
    assert preprocessing is not None
    return Entry(
        arch=arch,
        shapes=shapes,
        heads=frozenset(full_names(arch) - shapes.keys()),
        sized=sized(arch, shapes, preprocessing.image_size),
        image_size=preprocessing.image_size,
        normalisations=((preprocessing.mean, preprocessing.std), *others(arch)),
    )


def shapes_of(module: nn.Module) -> Shapes:
    """Return the names and shapes of a module's state."""
    return {
        name: tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
        if not name.endswith(UNUSED)
    }


def full_names(arch: str) -> set[str]:
    """Return the names of a tower's state with its classifier; open_clip's towers have none."""
    owner, _, name = arch.partition(":")
    if owner == "open_clip":
        return set()
    make = library("timm").create_model if owner == "timm" else library("torchvision").get_model
    try:
        with torch.device("meta"):
            return set(shapes_of(make(name)))
    except Exception:
        with torch.random.fork_rng(devices=[]):
            return set(shapes_of(make(name)))


def sized(arch: str, shapes: Shapes, size: int) -> frozenset[str]:
    """Return the tensors whose shapes follow the image size, where the size can be chosen."""
    if not any(mark in name for name in shapes for mark in ("pos", "table", "attention_bias")):
        return frozenset()
    try:
        larger = shapes_of(build(resized(arch, 2 * size))[0])
    except (ConfigError, AssertionError):
        return frozenset()
    if larger.keys() != shapes.keys():
        return frozenset()
    return frozenset(name for name, shape in shapes.items() if larger[name] != shape)


def resized(arch: str, size: int) -> str:
    """Return the architecture for images of another size."""
    return joined(arch, {SIZE_OPTIONS[arch.partition(":")[0]]: size})


def others(arch: str) -> Iterator[tuple[Any, Any]]:
    """Yield the means and standard deviations of all weights that timm knows of an architecture."""
    owner, _, name = arch.partition(":")
    if owner != "timm":
        return
    for config in library("timm").models.get_arch_pretrained_cfgs(name).values():
        if config.has_weights:
            yield tuple(map(float, config.mean)), tuple(map(float, config.std))


def classify(entries: list[Entry]) -> list[Entry]:
    """Number the families, and within each the functions."""
    found = []
    for number, members in enumerate(families(entries)):
        functions = functions_of(members) if len(members) > 1 else [0]
        found += [
            replace(entry, family=number, function=function)
            for entry, function in zip(members, functions, strict=True)
        ]
    order = {entry.arch: place for place, entry in enumerate(entries)}
    return sorted(found, key=lambda entry: order[entry.arch])


def families(entries: list[Entry]) -> list[list[Entry]]:
    """Group the towers that one file might be: same names and, but for image sizes, same shapes."""
    namesakes: dict[Any, list[tuple[Entry, Shapes]]] = defaultdict(list)
    for entry in entries:
        outer = len(common_prefix(entry.shapes))
        shapes = {name[outer:]: shape for name, shape in entry.shapes.items()}
        namesakes[frozenset(shapes)].append((entry, shapes))
    grouped: dict[Any, list[Entry]] = defaultdict(list)
    for names, members in namesakes.items():
        # A library that cannot resize a tower may have one that another library resizes.
        sized = {
            name[len(common_prefix(entry.shapes)) :] for entry, _ in members for name in entry.sized
        }
        for entry, shapes in members:
            fixed = frozenset((name, shapes[name]) for name in names - sized)
            grouped[names, fixed].append(entry)
    return list(grouped.values())


def common_prefix(names: Iterable[str]) -> str:
    """Return the modules that all names lie in: a tower within a tower has no tensors of its own.

    >>> common_prefix(["trunk.norm.weight", "trunk.norm.bias"])
    'trunk.norm.'
    """
    names = list(names)
    prefix = ""
    while True:
        first, dot, _ = names[0][len(prefix) :].partition(".")
        if not dot or not all(name.startswith(f"{prefix}{first}.") for name in names):
            return prefix
        prefix += f"{first}."


def functions_of(members: list[Entry]) -> list[int]:
    """Return for each member the number of its function, counted from 0 in this family."""
    started = time.monotonic()
    firsts: list[Reference] = []
    numbers: dict[str, int] = {}
    # The smallest images first: the others are compared at their size.
    for member in sorted(members, key=lambda entry: entry.image_size):
        agreeing = (number for number, first in enumerate(firsts) if first.agrees(member))
        numbers[member.arch] = next(agreeing, len(firsts))
        if numbers[member.arch] == len(firsts):
            firsts.append(Reference(member))
    names = ", ".join(f"{arch}={number}" for arch, number in numbers.items())
    say(f"{time.monotonic() - started:6.1f} s  {names}")
    return [numbers[member.arch] for member in members]


class Reference:
    """A tower with random weights, and the features that it makes of a few images."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.prefix = common_prefix(entry.shapes)
        size = entry.image_size
        self.images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        self.state: dict[str, Tensor] = {}
        self.features: Tensor | None = None

    def agrees(self, other: Entry) -> bool:
        """Tell whether another tower makes the same features with the same weights."""
        config = config_of(self.entry.arch)
        if config is not None and config == config_of(other.arch):
            return True
        if sum(map(math.prod, self.entry.shapes.values())) > LARGEST:
            say(f"    {self.entry.arch}: too large to be compared")
            return False
        if self._shaped_as(other) or other.sized:
            return self._same_features(other)
        # Only one of the two can be built for the image size of the other.
        return bool(self.entry.sized) and self._at(other.image_size)._same_features(other)

    def _at(self, size: int) -> Reference:
        arch = resized(self.entry.arch, size)
        shapes = shapes_of(build(arch)[0])
        return Reference(replace(self.entry, arch=arch, shapes=shapes, image_size=size))

    def _shaped_as(self, other: Entry) -> bool:
        prefix = common_prefix(other.shapes)
        return all(
            other.shapes[prefix + name[len(self.prefix) :]] == shape
            for name, shape in self.entry.shapes.items()
        )

    def _same_features(self, other: Entry) -> bool:
        own = self._own_features()
        prefix = common_prefix(other.shapes)
        state = {prefix + name[len(self.prefix) :]: part for name, part in self.state.items()}
        same_size = self._shaped_as(other)
        try:
            arch = other.arch if same_size else resized(other.arch, self.entry.image_size)
            theirs = features(built(arch, state), self.images)
        except Exception as error:
            say(f"    {other.arch} at {self.entry.image_size} px: {error!s:.100}")
            return False
        scale = own.abs().max().item()
        varies = (own[0] - own[1]).abs().max().item() > LEAST_VARIATION * scale
        if not (varies and math.isfinite(scale)):
            say(f"    {self.entry.arch}: features prove nothing (scale {scale:.3g})")
            return False
        return own.shape == theirs.shape and (own - theirs).abs().max().item() <= TOLERANCE * scale

    def _own_features(self) -> Tensor:
        if self.features is None:
            empty = next(sources(self.entry.arch)).build()
            module = built(self.entry.arch, dict(weights(empty.state_dict())))
            calibrate(module, self.images)
            self.state = dict(module.state_dict())
            self.features = features(module, self.images)
        return self.features


def config_of(arch: str) -> Any:
    """Return the whole configuration of an open_clip tower, None for other libraries."""
    owner, _, name = arch.partition(":")
    if owner != "open_clip":
        return None
    config = library("open_clip").get_model_config(name)
    vision = {k: v for k, v in config["vision_cfg"].items() if k != "timm_model_pretrained"}
    return config["embed_dim"], bool(config.get("quick_gelu")), vision


def built(arch: str, state: Mapping[str, Tensor]) -> nn.Module:
    """Return a tower with these weights."""
    source = next(sources(arch))
    module = source.build()
    if computes_on_meta(module):
        module = source.build(on_meta=False)
    module.load_state_dict(state, strict=False, assign=True)
    left = [name for name, tensor in module.state_dict().items() if tensor.is_meta]
    if left:
        raise ValueError(f"no weights for {left[0]}")
    return module.eval()


def calibrate(module: nn.Module, images: Tensor) -> None:
    """Give every BatchNorm the statistics of its input, so that no signal dies on its way."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        module.train()(images)
    module.eval()


def features(module: nn.Module, images: Tensor) -> Tensor:
    """Return what a tower makes of images, (N, D)."""
    with torch.no_grad():
        made: Tensor = module(images)
    return made.flatten(1)


def weights(state: Mapping[str, Tensor]) -> Iterable[tuple[str, Tensor]]:
    """Draw weights that keep signals alive through any depth, the same for the same names."""
    generator = torch.Generator().manual_seed(1)
    # To draw a billion numbers takes longer than to use them: large tensors repeat the same ones,
    # out of step with their rows.
    pool = torch.randn(POOL, generator=generator)
    for name, tensor in sorted(state.items()):
        if not tensor.is_floating_point():
            if tensor.is_meta:
                yield name, torch.zeros(tensor.shape, dtype=tensor.dtype)
            continue
        shape = tensor.shape
        if name.endswith("running_var"):
            drawn = torch.rand(shape, generator=generator) + 0.5
        elif len(shape) in (2, 4) and min(shape) > 0 and "pos" not in name:
            count = math.prod(shape)
            normal = pool.repeat(count // POOL + 1)[:count].view(shape)
            drawn = normal / math.sqrt(math.prod(shape[1:]))
        elif len(shape) == 1 and not name.endswith(("bias", "running_mean")):
            drawn = torch.rand(shape, generator=generator) / 2 + 0.5
        else:
            drawn = torch.randn(shape, generator=generator) * 0.2
        yield name, drawn


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
