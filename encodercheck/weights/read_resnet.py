"""ResNets of any width and depth, read off the names and shapes of their tensors.

Basic and bottleneck blocks, torchvision's names and those of a Sequential. No weight is read and
nothing is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from encodercheck.errors import (
    AmbiguousArchitecture,
    ConfigError,
    LoadError,
    UnknownArchitecture,
)
from encodercheck.preprocessing import CIFAR10, IMAGENET, Preprocessing
from encodercheck.weights.checkpoint import Checkpoint
from encodercheck.weights.header import listed, located, quoted
from encodercheck.weights.match import MAX_ENCODERS, Match, check_dtypes, match, notes_of, preferred
from encodercheck.weights.metadata import METADATA, METADATA_KEY, Metadata
from encodercheck.weights.spec import MAX_BLOCKS, MAX_STAGES, ResNetSpec, Shape, expected_shapes

TRY_ARCH = (
    "pass --arch: a torchvision, timm or open_clip name, such as --arch timm:vit_base_patch16_224, "
    "or package.module:callable"
)
# What no tensor shows, and what --arch resnet,key=value can therefore say.
UNSEEN = ("stem_stride", "maxpool", "strides")


class NoResNet(UnknownArchitecture):
    """Nothing in the file even looks like a ResNet."""


@dataclass(frozen=True)
class Identified:
    """A ResNet that fits a file.

    ``key_map`` leads from names in the file to names in the module; it names every tensor that the
    encoder needs, and no other. ``notes`` say what was assumed, chosen and left out.
    """

    spec: ResNetSpec
    key_map: dict[str, str]
    found_by: str
    notes: tuple[str, ...]
    preprocessing: Preprocessing


def read_resnet(
    checkpoint: Checkpoint, metadata: Metadata, options: Mapping[str, Any] | None = None
) -> Identified:
    """Find the ResNet whose tensors the file holds.

    ``options`` say of it what no tensor shows: ``stem_stride``, ``maxpool``, ``strides``.

    Raises:
        UnknownArchitecture: the tensors are those of something else.
        AmbiguousArchitecture: there are several encoders, or several strides that the stem may
            have, and nothing says which to take.
        ConfigError: the options make no ResNet.
        LoadError: the metadata contradict the tensors, or the encoder is one that cannot be
            scanned: integer weights, or images of other than three channels.
    """
    seen, found, notes = _choose(checkpoint)
    if options is not None:
        spec, found_by = _told(seen, options), "--arch"
    elif metadata.spec is not None:
        spec, found_by = _agreed(checkpoint, seen, metadata.spec), METADATA
    else:
        spec, found_by = _settled(checkpoint, seen, found.prefix), "read off the tensors"
        notes = (*assumptions(spec), *notes)
    check_dtypes(checkpoint, found.key_map)
    preprocessing = _assumed(spec).replaced(METADATA, **metadata.preprocessing)
    return Identified(spec, found.key_map, found_by, notes, preprocessing)


def renamed(checkpoint: Checkpoint) -> Checkpoint | None:
    """Return the checkpoint with torchvision's names where it has those of a Sequential.

    ``originals`` of what is returned lead back; None says that nothing is called so.
    """
    prefixes = [prefix for prefix, kind in _candidates(checkpoint).items() if kind == "sequential"]
    if not prefixes:
        return None
    renamings = {prefix: _Renaming(checkpoint, prefix, "sequential") for prefix in prefixes}
    names: dict[str, str] = {}
    for name in checkpoint.tensors:
        # The longest prefix is the innermost network.
        for prefix in sorted(renamings, key=len, reverse=True):
            if name.startswith(prefix):
                inner = renamings[prefix](name[len(prefix) :])
                names[f"{prefix}{inner}" if inner is not None else name] = name
                break
        else:
            names[name] = name
    tensors = {new: checkpoint.tensors[old] for new, old in names.items()}
    return replace(checkpoint, tensors=tensors, originals=names)


def _settled(checkpoint: Checkpoint, seen: ResNetSpec, prefix: str) -> ResNetSpec:
    """Return the spec where only one convention of the stem is known.

    A 7x7 stem has stride 2 and a max-pool wherever it is used. A 3x3 stem has what its author
    liked, but for BadEncoder's (and SimCLR's for CIFAR) Sequential called f: stride 1.

    Raises:
        AmbiguousArchitecture: several conventions fit.
    """
    sequential = seen.naming == "sequential"
    if seen.stem_kernel == 7 or (sequential and not seen.maxpool and prefix.endswith("f.")):
        return seen
    pools = [seen.maxpool] if sequential else [False, True]
    candidates = [f"resnet,stem_stride=1,maxpool={pool}" for pool in pools]
    candidates.append(f"resnet,stem_stride=2,maxpool={pools[0]}")
    plain = replace(seen, stem_kernel=7, stem_stride=2, maxpool=True)
    raise AmbiguousArchitecture.among(
        f"{located(checkpoint.path)}: a {plain} but for its 3x3 stem, whose stride no tensor shows",
        candidates,
    )


def _told(seen: ResNetSpec, options: Mapping[str, Any]) -> ResNetSpec:
    """Return the spec with what ``--arch resnet,...`` says."""
    try:
        unknown = set(options) - set(UNSEEN)
        if unknown:
            raise ValueError(f"{', '.join(unknown)} can be read off the tensors")
        values = {**seen.to_dict(), "strides": list(options.get("strides", seen.strides))}
        return ResNetSpec.from_dict(
            {**values, **{k: v for k, v in options.items() if k != "strides"}}
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"--arch resnet: {quoted(error)}; it takes {', '.join(UNSEEN)}, as in "
            "resnet,stem_stride=1,maxpool=False"
        ) from error


def _choose(checkpoint: Checkpoint) -> tuple[ResNetSpec, Match, tuple[str, ...]]:
    """Return the encoder to scan, its tensors, and notes on the others."""
    candidates = _candidates(checkpoint)
    if not candidates:
        raise NoResNet(f"{located(checkpoint.path)}: holds no ResNet; {TRY_ARCH}")
    fitting: dict[str, tuple[ResNetSpec, Match]] = {}
    refusal: LoadError | None = None
    for prefix, naming in candidates.items():
        try:
            fitting[prefix] = _read(checkpoint, prefix, naming, candidates)
        except LoadError as error:
            refusal = refusal or error
    if not fitting:
        assert refusal is not None
        raise refusal
    spec, found = fitting[preferred(fitting, checkpoint)]
    return spec, found, notes_of(found, fitting)


def _candidates(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the prefixes under which a ResNet seems to start, with its naming."""
    found: dict[str, str] = {}
    for name in checkpoint.tensors:
        prefix = name.removesuffix("layer1.0.conv1.weight")
        if prefix != name and (not prefix or prefix.endswith(".")):
            found[prefix] = "torchvision"
        matched = re.fullmatch(r"((?:.*\.)?)[34]\.0\.conv1\.weight", name, re.DOTALL)
        if matched and f"{matched[1]}0.weight" in checkpoint.tensors:
            found[matched[1]] = "sequential"
    if len(found) > MAX_ENCODERS:
        raise AmbiguousArchitecture(
            f"{located(checkpoint.path)}: holds {len(found)} encoders ({listed(found)}); say which "
            f"one is meant with --tower {quoted(next(iter(found)) or '.')}"
        )
    return found


def _read(
    checkpoint: Checkpoint, prefix: str, naming: str, others: Iterable[str]
) -> tuple[ResNetSpec, Match]:
    """Read the spec off the tensors under ``prefix`` and check that it explains all of them."""
    rename = _Renaming(checkpoint, prefix, naming)
    shapes = {
        renamed: tensor.shape
        for name, tensor in checkpoint.tensors.items()
        if name.startswith(prefix) and (renamed := rename(name[len(prefix) :])) is not None
    }
    try:
        _check_stem(checkpoint, shapes)
        spec = _spec(shapes, naming, maxpool=rename.maxpool)
    except ValueError as error:
        where = f" under '{quoted(prefix)}'" if prefix else ""
        raise UnknownArchitecture(
            f"{located(checkpoint.path)}: has the stages of a ResNet{where}, but is another "
            f"architecture: {error}; {TRY_ARCH}"
        ) from error
    found = match(expected_shapes(spec), checkpoint, prefix, rename, others)
    if not found.complete:
        raise UnknownArchitecture(
            f"{located(checkpoint.path)}: looks like {spec} but does not fit it: "
            f"{found.describe()}; if it is another architecture, {TRY_ARCH}"
        )
    return spec, found


class _Renaming:
    """From names in the file, prefix stripped, to torchvision's; None for a head's."""

    def __init__(self, checkpoint: Checkpoint, prefix: str, naming: str) -> None:
        self.sequential = naming == "sequential"
        # A Sequential of torchvision's children: convolution, norm, ReLU, perhaps the max-pool,
        # the stages. Where the stages begin tells whether the max-pool is there.
        self.first = 3 if f"{prefix}3.0.conv1.weight" in checkpoint.tensors else 4
        self.stages = 0
        while f"{prefix}{self.first + self.stages}.0.conv1.weight" in checkpoint.tensors:
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


def _check_stem(checkpoint: Checkpoint, shapes: Mapping[str, Shape]) -> None:
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
            f"{located(checkpoint.path)}: the encoder reads images of {stem[1]} channel"
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


def _agreed(checkpoint: Checkpoint, seen: ResNetSpec, said: ResNetSpec) -> ResNetSpec:
    """Return the metadata's spec where it differs only in what no tensor can show."""
    pooled = seen.maxpool if seen.naming == "sequential" else said.maxpool
    same = expected_shapes(seen) == expected_shapes(said) and seen.groups == said.groups
    if not same or said.naming != seen.naming or said.maxpool != pooled:
        raise LoadError(
            f"{located(checkpoint.path)}: the metadata say {said} ({said.naming} names) but the "
            f"tensors are those of {seen} ({seen.naming} names); save the file without the "
            f"metadata entry '{METADATA_KEY}'"
        )
    return said


def assumptions(spec: ResNetSpec) -> tuple[str, ...]:
    """Say what was taken to be so that no tensor shows."""
    pool = "with" if spec.maxpool else "without"
    kernel = f"{spec.stem_kernel}x{spec.stem_kernel}"
    return (
        "strides are not in a weights file: taken to be a "
        f"{kernel} stem of stride {spec.stem_stride} {pool} max-pool, then "
        f"{'-'.join(map(str, spec.strides))}"
        f"{' on the 3x3 convolutions (v1.5)' if spec.block == 'bottleneck' else ''}",
    )


def _assumed(spec: ResNetSpec) -> Preprocessing:
    """Return the preprocessing that goes with the stem."""
    name, size, (mean, std) = (
        ("ImageNet", 224, IMAGENET) if spec.stem_kernel == 7 else ("CIFAR-10", 32, CIFAR10)
    )
    kernel = f"{spec.stem_kernel}x{spec.stem_kernel}"
    return Preprocessing(size, mean, std, f"assumed from the {kernel} stem: {name}")
