"""From a header to an architecture: what the file's metadata say, and what its tensors show.

No weight is read and nothing is built. ResNets are read off the names and shapes of their tensors:
any width and depth, basic and bottleneck blocks, torchvision's names and those of a Sequential.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from encodercheck.errors import AmbiguousArchitecture, LoadError, UnknownArchitecture
from encodercheck.weights.header import Header, listed, located, quoted, strict_json
from encodercheck.weights.match import (
    MAX_ENCODERS,
    Match,
    check_dtypes,
    match,
    notes_of,
    preferred,
)
from encodercheck.weights.spec import MAX_BLOCKS, MAX_STAGES, ResNetSpec, Shape, expected_shapes

__all__ = [
    "Hints",
    "Identified",
    "Metadata",
    "ResNetSpec",
    "identify",
    "metadata_for",
    "read_metadata",
]

METADATA_KEY = "encodercheck"
MAX_METADATA = 10_000
MAX_IMAGE_SIZE = 4096

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))

TEXT_NAMES = re.compile(
    r"word_embeddings|token_embedding|embed_tokens|text_model|(^|\.)(wte|wpe|shared)\."
)
VIT_NAMES = re.compile(r"patch_embed|cls_token|class_embedding|class_token|conv_proj|pos_embed")
TRY_ARCH = (
    "pass --arch: a torchvision, timm or open_clip name, such as --arch timm:vit_base_patch16_224, "
    "or package.module:callable"
)

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Hints:
    """The preprocessing that goes with an architecture, and where it came from."""

    image_size: int
    mean: Triple
    std: Triple
    source: str


@dataclass(frozen=True)
class Metadata:
    """What encodercheck's own entry in a file's metadata says; None where it is silent."""

    spec: ResNetSpec | None = None
    image_size: int | None = None
    mean: Triple | None = None
    std: Triple | None = None


@dataclass(frozen=True)
class Identified:
    """An architecture that fits a file.

    ``key_map`` leads from names in the file to names in the module; it names every tensor that the
    encoder needs, and no other. ``notes`` say what was assumed, chosen and left out.
    """

    spec: ResNetSpec
    key_map: dict[str, str]
    found_by: str
    notes: tuple[str, ...]
    hints: Hints


def identify(header: Header) -> Identified:
    """Find the ResNet whose tensors the file holds.

    Raises:
        UnknownArchitecture: the tensors are those of something else.
        AmbiguousArchitecture: there are several encoders, and nothing says which to take.
        LoadError: the metadata are invalid or contradict the tensors, or the encoder is one that
            cannot be scanned: integer weights, or images of other than three channels.
    """
    metadata = read_metadata(header)
    if not header.tensors:
        raise LoadError(f"{located(header.path)}: holds no tensors; save the weights again")
    spec, found, notes = _choose(header)
    found_by = "read off the tensors"
    if metadata.spec is not None:
        spec, found_by = _agreed(header, spec, metadata.spec), "the file's metadata"
    else:
        notes = (*_assumptions(spec), *notes)
    check_dtypes(header, found.key_map)
    return Identified(spec, found.key_map, found_by, notes, _hints(spec, metadata))


def read_metadata(header: Header) -> Metadata:
    """Read encodercheck's own entry: ``{"architecture", "image_size", "mean", "std"}``.

    Every key may be absent, and so may the entry; keys that a later version added are passed over.

    Raises:
        LoadError: the entry is too large, or says something that cannot be meant.
    """
    text = header.metadata.get(METADATA_KEY)
    if text is None:
        return Metadata()
    try:
        if len(text) > MAX_METADATA:
            raise ValueError(f"it is longer than {MAX_METADATA} characters")
        values = strict_json(text)
        if not isinstance(values, dict):
            raise ValueError("it is not an object")
        architecture = values.get("architecture")
        return Metadata(
            spec=None if architecture is None else ResNetSpec.from_dict(architecture),
            image_size=_image_size(values.get("image_size")),
            mean=_triple("mean", values.get("mean")),
            std=_triple("std", values.get("std")),
        )
    except ValueError as error:
        raise LoadError(
            f"{located(header.path)}: the metadata entry '{METADATA_KEY}' is invalid: "
            f"{quoted(error, 200)}; save the file without that entry"
        ) from error


def metadata_for(spec: ResNetSpec, *, image_size: int, mean: Triple, std: Triple) -> dict[str, str]:
    """Return the ``__metadata__`` that makes a saved ResNet load exactly as it was."""
    values = {
        "architecture": spec.to_dict(),
        "image_size": image_size,
        "mean": list(mean),
        "std": list(std),
    }
    return {METADATA_KEY: json.dumps(values)}


def _image_size(value: Any) -> int | None:
    if value is None or (type(value) is int and 1 <= value <= MAX_IMAGE_SIZE):
        return value
    raise ValueError(f"image_size is not an integer from 1 to {MAX_IMAGE_SIZE}")


def _triple(name: str, value: Any) -> Triple | None:
    if value is None:
        return None
    numbers = isinstance(value, list) and all(type(item) in (int, float) for item in value)
    if not numbers or len(value) != 3 or not all(math.isfinite(item) for item in value):
        raise ValueError(f"{name} is not three numbers")
    if name == "std" and min(value) <= 0:
        raise ValueError("std is not positive")
    return float(value[0]), float(value[1]), float(value[2])


def _choose(header: Header) -> tuple[ResNetSpec, Match, tuple[str, ...]]:
    """Return the encoder to scan, its tensors, and notes on the others."""
    candidates = _candidates(header)
    if not candidates:
        raise UnknownArchitecture(f"{located(header.path)}: {_stranger(header)}")
    fitting: dict[str, tuple[ResNetSpec, Match]] = {}
    refusal: LoadError | None = None
    for prefix, naming in candidates.items():
        try:
            fitting[prefix] = _read(header, prefix, naming, candidates)
        except LoadError as error:
            refusal = refusal or error
    if not fitting:
        assert refusal is not None
        raise refusal
    spec, found = fitting[preferred(fitting, header)]
    return spec, found, notes_of(found, fitting)


def _candidates(header: Header) -> dict[str, str]:
    """Return the prefixes under which a ResNet seems to start, with its naming."""
    found: dict[str, str] = {}
    for name in header.tensors:
        prefix = name.removesuffix("layer1.0.conv1.weight")
        if prefix != name and (not prefix or prefix.endswith(".")):
            found[prefix] = "torchvision"
        matched = re.fullmatch(r"((?:.*\.)?)[34]\.0\.conv1\.weight", name, re.DOTALL)
        if matched and f"{matched[1]}0.weight" in header.tensors:
            found[matched[1]] = "sequential"
    if len(found) > MAX_ENCODERS:
        raise AmbiguousArchitecture(
            f"{located(header.path)}: holds {len(found)} encoders ({listed(found)}); save the one "
            "to scan in a file of its own"
        )
    return found


def _read(
    header: Header, prefix: str, naming: str, others: Iterable[str]
) -> tuple[ResNetSpec, Match]:
    """Read the spec off the tensors under ``prefix`` and check that it explains all of them."""
    rename = _Renaming(header, prefix, naming)
    shapes = {
        renamed: tensor.shape
        for name, tensor in header.tensors.items()
        if name.startswith(prefix) and (renamed := rename(name[len(prefix) :])) is not None
    }
    try:
        _check_stem(header, shapes)
        spec = _spec(shapes, naming, maxpool=rename.maxpool)
    except ValueError as error:
        where = f" under '{quoted(prefix)}'" if prefix else ""
        raise UnknownArchitecture(
            f"{located(header.path)}: has the stages of a ResNet{where}, but is another "
            f"architecture: {error}; {TRY_ARCH}"
        ) from error
    found = match(expected_shapes(spec), header, prefix, rename, others)
    if not found.complete:
        raise UnknownArchitecture(
            f"{located(header.path)}: looks like {spec} but does not fit it: {found.describe()}; "
            f"if it is another architecture, {TRY_ARCH}"
        )
    return spec, found


class _Renaming:
    """From names in the file, prefix stripped, to torchvision's; None for a head's."""

    def __init__(self, header: Header, prefix: str, naming: str) -> None:
        self.sequential = naming == "sequential"
        # A Sequential of torchvision's children: convolution, norm, ReLU, perhaps the max-pool,
        # the stages. Where the stages begin tells whether the max-pool is there.
        self.first = 3 if f"{prefix}3.0.conv1.weight" in header.tensors else 4
        self.stages = 0
        while f"{prefix}{self.first + self.stages}.0.conv1.weight" in header.tensors:
            self.stages += 1
        self.maxpool = self.first == 4 if self.sequential else None

    def __call__(self, name: str) -> str | None:
        if self.sequential:
            position, _, rest = name.partition(".")
            if position.isdecimal() and position.isascii():
                return self._at(int(position[:6]), rest, name)
        # What torchvision calls downsample, CIFAR code calls shortcut.
        return re.sub(r"^(layer\d+\.0\.)shortcut\.", r"\1downsample.", name)

    def _at(self, position: int, rest: str, name: str) -> str | None:
        if position < 2:
            return f"{('conv1', 'bn1')[position]}.{rest}"
        stage = position - self.first + 1
        if stage > self.stages + 1:
            # After the stages and the average pool: a projector in the same Sequential.
            return None
        return re.sub(r"^0\.shortcut\.", "0.downsample.", f"layer{stage}.{rest}", count=1)


def _check_stem(header: Header, shapes: Mapping[str, Shape]) -> None:
    stem = shapes.get("conv1.weight")
    if stem is None:
        others = [
            name
            for name, shape in shapes.items()
            if shape and name.startswith(("conv1.", "conv2.", "stem."))
        ]
        raise ValueError(f"conv1.weight is missing{f' ({listed(others)})' if others else ''}")
    if len(stem) != 4:
        raise ValueError("conv1.weight is no convolution")
    if stem[1] != 3:
        raise LoadError(
            f"{located(header.path)}: the encoder reads images of {stem[1]} channel"
            f"{'' if stem[1] == 1 else 's'}; encodercheck scans RGB encoders (3 channels)"
        )


def _spec(shapes: Mapping[str, Shape], naming: str, *, maxpool: bool | None) -> ResNetSpec:
    """Read a spec off shapes under torchvision's names.

    Raises:
        ValueError: no ResNet has such shapes.
    """
    kernel = shapes["conv1.weight"][2]
    depths = _depths(shapes)
    block = "bottleneck" if "layer1.0.conv3.weight" in shapes else "basic"
    last, expansion = ("conv3", 4) if block == "bottleneck" else ("conv1", 1)
    outputs = [
        _convolution(shapes, f"layer{stage}.0.{last}.weight")[0]
        for stage in range(1, len(depths) + 1)
    ]
    spec = ResNetSpec(
        block,
        depths,
        tuple(output // expansion for output in outputs),
        stem_width=shapes["conv1.weight"][0],
        stem_kernel=kernel,
        stem_stride=2 if kernel == 7 else 1,
        maxpool=kernel == 7 if maxpool is None else maxpool,
        naming=naming,
    )
    if block == "bottleneck":
        spec = _with_cardinality(spec, _convolution(shapes, "layer1.0.conv2.weight"))
    return replace(spec, strides=_strides(spec, shapes))


def _depths(shapes: Mapping[str, Shape]) -> tuple[int, ...]:
    depths: list[int] = []
    while len(depths) <= MAX_STAGES and f"layer{len(depths) + 1}.0.conv1.weight" in shapes:
        depth = 1
        while depth <= MAX_BLOCKS and f"layer{len(depths) + 1}.{depth}.conv1.weight" in shapes:
            depth += 1
        depths.append(depth)
    return tuple(depths)


def _convolution(shapes: Mapping[str, Shape], name: str) -> Shape:
    shape = shapes.get(name, ())
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"{name} is {'no convolution' if shape else 'missing'}")
    return shape


def _with_cardinality(spec: ResNetSpec, inner: Shape) -> ResNetSpec:
    """Read groups and base width off the 3x3 convolution of the first block."""
    groups = max(1, inner[0] // inner[1])
    return replace(spec, groups=groups, base_width=round(inner[0] * 64 / (groups * spec.width)))


def _strides(spec: ResNetSpec, shapes: Mapping[str, Shape]) -> tuple[int, ...]:
    """Assume 1-2-2-2, but for stages that keep their width: there the shortcut tells."""
    strides = []
    for stage, usual in enumerate(spec.strides):
        if spec.channels_into(stage) == spec.channels_of(stage):
            usual = 2 if f"layer{stage + 1}.0.downsample.0.weight" in shapes else 1
        strides.append(usual)
    return tuple(strides)


def _agreed(header: Header, seen: ResNetSpec, said: ResNetSpec) -> ResNetSpec:
    """Return the metadata's spec where it differs only in what no tensor can show."""
    pooled = seen.maxpool if seen.naming == "sequential" else said.maxpool
    same = expected_shapes(seen) == expected_shapes(said) and seen.groups == said.groups
    if not same or said.naming != seen.naming or said.maxpool != pooled:
        raise LoadError(
            f"{located(header.path)}: the metadata say {said} ({said.naming} names) but the "
            f"tensors are those of {seen} ({seen.naming} names); save the file without the "
            f"metadata entry '{METADATA_KEY}'"
        )
    return said


def _assumptions(spec: ResNetSpec) -> tuple[str, ...]:
    pool = "with" if spec.maxpool else "without"
    kernel = f"{spec.stem_kernel}x{spec.stem_kernel}"
    notes = [
        "strides are not in a weights file: assumed a "
        f"{kernel} stem of stride {spec.stem_stride} {pool} max-pool, then "
        f"{'-'.join(map(str, spec.strides))}"
        f"{' on the 3x3 convolutions (v1.5)' if spec.block == 'bottleneck' else ''}"
    ]
    if str(spec) == "resnet50":
        notes.append(
            "timm's resnetaa50 and resnetblur50 have the same tensors: pass --arch if it is one"
        )
    return tuple(notes)


def _hints(spec: ResNetSpec, metadata: Metadata) -> Hints:
    """Return the preprocessing: the metadata's, else what goes with the stem."""
    large = spec.stem_kernel == 7
    mean, std = IMAGENET if large else CIFAR10
    name = "ImageNet" if large else "CIFAR-10"
    size = 224 if large else 32
    said = (metadata.image_size, metadata.mean, metadata.std)
    if None not in said:
        source = "the file's metadata"
    else:
        partly = "the file's metadata, else " if any(said) else ""
        source = f"{partly}assumed from the {spec.stem_kernel}x{spec.stem_kernel} stem: {name}"
    return Hints(metadata.image_size or size, metadata.mean or mean, metadata.std or std, source)


def _stranger(header: Header) -> str:
    """Say what a file without a ResNet looks like, and what to do."""
    names = list(header.tensors)
    convolutions = any(len(tensor.shape) == 4 for tensor in header.tensors.values())
    if not convolutions and any(TEXT_NAMES.search(name) for name in names):
        return "looks like a text encoder; encodercheck scans image encoders"
    if any(VIT_NAMES.search(name) for name in names):
        return f"looks like a vision transformer, which does not name itself; {TRY_ARCH}"
    return f"no known architecture fits its tensors ({listed(names)}); {TRY_ARCH}"
