"""From tensors to an architecture: which of the known image towers a file can hold.

No weight is read and nothing is built: :mod:`encodercheck.planning` builds what is found here, and
believes it only if it fits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from encodercheck.errors import AmbiguousArchitecture, UnknownArchitecture
from encodercheck.weights import index
from encodercheck.weights.checkpoint import Checkpoint
from encodercheck.weights.header import listed, located
from encodercheck.weights.index import Hit
from encodercheck.weights.match import UNUSED, Match, match, preferred
from encodercheck.weights.metadata import Metadata, read_metadata
from encodercheck.weights.read_resnet import (
    TRY_ARCH,
    Identified,
    NoResNet,
    read_resnet,
    renamed,
)
from encodercheck.weights.read_vit import read_vit
from encodercheck.weights.spec import Shape
from encodercheck.weights.two_towers import TEXT_NAMES

LIBRARY_ORDER = ("torchvision", "timm", "open_clip")
# A smaller share of names in common is chance.
LEAST_SHARE = 0.3
# MoCo v3 (Chen, Xie, He, ICCV 2021) divides its ViT-S among 12 heads, everybody else among 6.
MOCO_V3 = re.compile(r"(^|\.)(base|momentum)_encoder\.$")
VIT_SMALL = "timm:vit_small_patch16_224"


@dataclass(frozen=True)
class Function:
    """Towers that fit a file and compute the same features, the plainest name first.

    ``archs`` are what to pass as ``--arch``, any of them; ``hits`` their entries in the index.
    """

    archs: tuple[str, ...]
    hits: tuple[Hit, ...] = ()


def functions(checkpoint: Checkpoint) -> list[Function]:
    """Return every function that known towers compute with the tensors of a file.

    One is an identification, several are an ambiguity, none says that the architecture is unknown.

    Raises:
        AmbiguousArchitecture: the file holds several encoders, and nothing says which to take.
    """
    shapes = shapes_of(checkpoint)
    hits = index.load().find(shapes)
    prefixes = sorted({hit.prefix for hit in hits})
    matches = [(hit, _match(hit, shapes, checkpoint, prefixes)) for hit in hits]
    encoders: dict[frozenset[str], list[Hit]] = {}
    for hit, matched in matches:
        if matched.complete:
            encoders.setdefault(frozenset(matched.key_map), []).append(hit)
    # A part of an encoder is none: what explains fewer of the same tensors would leave some out.
    whole = [own for own in encoders if not any(own < other for other in encoders)]
    if not whole:
        return []
    by_prefix = {min((hit.prefix for hit in encoders[own]), key=len): own for own in whole}
    chosen = preferred(by_prefix, checkpoint)
    grouped: dict[tuple[int, int], list[Hit]] = {}
    for hit in sorted(encoders[by_prefix[chosen]], key=_rank):
        grouped.setdefault((hit.entry.family, hit.entry.function), []).append(hit)
    found = [Function(tuple(h.arch for h in hits), tuple(hits)) for hits in grouped.values()]
    return [*found, *_forks(found, chosen)]


def _forks(found: Iterable[Function], prefix: str) -> list[Function]:
    """Return what the wrapper's own code is known to build with the tensors of a known tower."""
    if not MOCO_V3.search(prefix):
        return []
    small = [arch for function in found for arch in function.archs if arch.startswith(VIT_SMALL)]
    return [Function((f"{small[0]},num_heads=12",))] if small else []


def views(checkpoint: Checkpoint) -> list[Checkpoint]:
    """Return the checkpoint as it is, and with a Sequential's names translated."""
    other = renamed(checkpoint)
    return [checkpoint] if other is None else [checkpoint, other]


def refuse_early(checkpoint: Checkpoint, tower: str | None = None) -> None:
    """Refuse, without torch, what :mod:`encodercheck.planning` would refuse by the tensors alone.

    Raises:
        LoadError: the tensors fit nothing, or architectures that compute different features.
    """
    metadata = read_metadata(checkpoint)
    if tower is not None:
        checkpoint = checkpoint.under(tower)
    if metadata.spec is not None:
        read_resnet(checkpoint, metadata)
        return
    if metadata.arch is not None:
        # It is for the library that it names to say whether the tensors fit.
        return
    for view in views(checkpoint):
        found = functions(view)
        if len(found) > 1:
            raise ambiguous(view, found)
        if found:
            return
    by_family(checkpoint, metadata)


def by_family(checkpoint: Checkpoint, metadata: Metadata) -> Identified:
    """Return the ResNet that can be read off tensors which no known tower has.

    Raises:
        AmbiguousArchitecture: it is one, or a vision transformer, and a part of it leaves no trace.
        UnknownArchitecture: it is nothing that is known.
        LoadError: it cannot be scanned.
    """
    try:
        return read_resnet(checkpoint, metadata)
    except NoResNet:
        pass
    candidates = read_vit(checkpoint)
    if candidates:
        raise AmbiguousArchitecture.among(
            f"{located(checkpoint.path)}: a vision transformer of no known name, whose number of "
            "heads no tensor shows",
            candidates,
        )
    raise unknown(checkpoint)


def unknown(checkpoint: Checkpoint) -> UnknownArchitecture:
    """Return the error of a file that no known architecture fits."""
    return UnknownArchitecture(f"{located(checkpoint.path)}: {_unknown(checkpoint)}")


def ambiguous(checkpoint: Checkpoint, functions: Sequence[Function]) -> AmbiguousArchitecture:
    """Return the error of a file that fits architectures which compute different features."""
    same = "; ".join(" = ".join(found.archs[:4]) for found in functions if len(found.archs) > 1)
    return AmbiguousArchitecture.among(
        f"{located(checkpoint.path)}: its tensors are those of {len(functions)} architectures that "
        f"compute different features{f' ({same} are one of them)' if same else ''}",
        [function.archs[0] for function in functions],
    )


def shapes_of(checkpoint: Checkpoint) -> dict[str, Shape]:
    """Return the names and shapes of what a module could take from a file."""
    return {
        name: tensor.shape
        for name, tensor in checkpoint.tensors.items()
        if not name.endswith(UNUSED)
    }


def expected_of(hit: Hit, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the tensors of a hit, those that follow the image size as the file has them."""
    return {
        name: shapes[hit.prefix + name] if name in hit.entry.sized else shape
        for name, shape in hit.entry.shapes.items()
    }


def _match(
    hit: Hit, shapes: Mapping[str, Shape], checkpoint: Checkpoint, prefixes: Iterable[str]
) -> Match:
    """Match a tower with everything under its prefix, or with that but for other encoders there."""
    expected = expected_of(hit, shapes)
    whole = match(expected, checkpoint, hit.prefix, heads=hit.entry.heads)
    if whole.complete:
        return whole
    return match(expected, checkpoint, hit.prefix, others=prefixes, heads=hit.entry.heads)


def _rank(hit: Hit) -> tuple[bool, int, int, str]:
    library = hit.entry.arch.partition(":")[0]
    return hit.resized, LIBRARY_ORDER.index(library), len(hit.entry.arch), hit.entry.arch


def _unknown(checkpoint: Checkpoint) -> str:
    """Say what a file looks like whose encoder is unknown, and what to do."""
    names = list(checkpoint.tensors)
    convolutions = any(len(tensor.shape) == 4 for tensor in checkpoint.tensors.values())
    if not convolutions and any(TEXT_NAMES.search(name) for name in names):
        return "looks like a text encoder; encodercheck scans image encoders"
    if any(mark in name for name in names for mark in TRANSFORMERS_MARKS):
        return (
            "has the names of a model of the transformers library, which only its config.json "
            f"describes; put that file beside it, or {TRY_ARCH}"
        )
    near = [
        (arch, share)
        for arch, share in index.load().nearest(shapes_of(checkpoint))
        if share >= LEAST_SHARE
    ]
    if near:
        shown = ", ".join(f"{arch} ({share:.0%} alike)" for arch, share in near)
        return f"no known architecture fits its tensors; the nearest are {shown}; {TRY_ARCH}"
    return f"no known architecture fits its tensors ({listed(names)}); {TRY_ARCH}"


TRANSFORMERS_MARKS = (
    "embeddings.patch_embeddings.",
    "vision_model.encoder.layers.",
    "encoder.stages.0.layers.0.",
    "embedder.embedder.convolution.",
)
