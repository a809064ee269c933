"""From a file to an encoder: which architecture, which preprocessing, then the weights.

Everything cheap comes first. The header is validated and an architecture found before torch builds
anything, and the weights are read only once every tensor is known to fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from encodercheck.encoder import Encoder, Preprocessing, Provenance, pick_device
from encodercheck.errors import ConfigError, LoadError
from encodercheck.weights.build import Source, sources
from encodercheck.weights.files import resolve, sha256
from encodercheck.weights.header import Header, located, os_reason, quoted, read_header, reason
from encodercheck.weights.identify import (
    MAX_IMAGE_SIZE,
    Metadata,
    identify,
    read_metadata,
)
from encodercheck.weights.match import (
    MAX_ENCODERS,
    Match,
    check_dtypes,
    is_head,
    match,
    notes_of,
    preferred,
    prefixes_of,
)
from encodercheck.weights.resnet import ResNet

UNUSED = "num_batches_tracked"


@dataclass(frozen=True)
class Inspection:
    """What a model file holds, without its weights.

    ``tensors`` and ``parameters`` count what the encoder takes from the file.
    """

    path: str
    architecture: str
    found_by: str
    notes: tuple[str, ...]
    preprocessing: Preprocessing
    tensors: int
    parameters: int


@dataclass(frozen=True)
class _Plan:
    """How a file becomes a module: ``build(on_meta)`` and which tensor goes where."""

    header: Header
    build: Callable[[bool], nn.Module]
    key_map: Mapping[str, str]
    architecture: str
    found_by: str
    notes: tuple[str, ...]
    preprocessing: Preprocessing


def load(
    model: str | Path,
    *,
    arch: str | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: str = "auto",
) -> Encoder:
    """Load an image encoder from a .safetensors file, or from a folder that holds one.

    Args:
        model: the file or folder.
        arch: ``torchvision:NAME``, ``timm:NAME``, ``open_clip:NAME``, a bare name, or
            ``package.module:callable``; None reads the architecture off the file.
        image_size: side of the square input in pixels, where the file's own is unknown or wrong.
        mean: three numbers subtracted from pixels in [0, 1].
        std: three numbers to divide by after that.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        The encoder: (N, 3, H, W) images in [0, 1] to (N, D) embeddings. Weights are float32 copies
        of the file's, whatever their values: NaN is for a check to find.

    Raises:
        LoadError: the file cannot be read, does not fit, or is no image encoder.
        ConfigError: an argument cannot work.
    """
    target = pick_device(device)
    plan = _plan(model, arch, image_size, mean, std)
    path = plan.header.path
    before = _stamp(path)
    module = _with_weights(plan)
    provenance = Provenance(
        str(path), sha256(path), plan.architecture, plan.found_by, notes=plan.notes
    )
    if _stamp(path) != before:
        raise LoadError(f"{located(path)}: changed while it was read; try again")
    try:
        encoder = Encoder(
            module, preprocessing=plan.preprocessing, provenance=provenance, device=target
        )
        if target.type == "cpu" and _is_convolutional(module):
            module.to(memory_format=torch.channels_last)
    except RuntimeError as error:
        raise LoadError(
            f"{located(path)}: does not fit on {target}: {quoted(error, 200)}; try --device cpu"
        ) from error
    _probe(encoder)
    return encoder


def inspect(
    model: str | Path,
    *,
    arch: str | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Inspection:
    """Say which encoder a file holds, and how that was found, without reading its weights.

    Raises:
        LoadError: the file cannot be read, does not fit, or is no image encoder.
        ConfigError: an argument cannot work.
    """
    plan = _plan(model, arch, image_size, mean, std)
    tensors = plan.header.tensors
    counted = [
        tensors[name].numel
        for name, inner in plan.key_map.items()
        if not inner.endswith(("running_mean", "running_var"))
    ]
    return Inspection(
        path=str(plan.header.path),
        architecture=plan.architecture,
        found_by=plan.found_by,
        notes=plan.notes,
        preprocessing=plan.preprocessing,
        tensors=len(plan.key_map),
        parameters=sum(counted),
    )


def _plan(
    model: str | Path,
    arch: str | None,
    image_size: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> _Plan:
    _check_preprocessing(image_size, mean, std)
    header = read_header(resolve(model))
    plan = _identified(header) if arch is None else _as_told(header, arch)
    chosen = _overridden(plan.preprocessing, image_size, mean, std)
    return replace(plan, preprocessing=chosen)


def _identified(header: Header) -> _Plan:
    found = identify(header)
    hints = found.hints

    def build(on_meta: bool) -> nn.Module:
        with torch.random.fork_rng(devices=[]), torch.device("meta" if on_meta else "cpu"):
            return ResNet(found.spec)

    return _Plan(
        header=header,
        build=build,
        key_map=found.key_map,
        architecture=str(found.spec),
        found_by=found.found_by,
        notes=found.notes,
        preprocessing=Preprocessing(hints.image_size, hints.mean, hints.std, hints.source),
    )


def _as_told(header: Header, arch: str) -> _Plan:
    """Plan with the first source of ``arch`` that fits the file."""
    metadata = read_metadata(header)
    closest: Match | None = None
    for source in sources(arch):
        module = source.build()
        found, others = _matched(source.name, module, header)
        absent = _absent_heads(module, found) if source.loose_head else ()
        if absent:
            _remove(module, absent)
            found, others = _matched(source.name, module, header)
        if found.complete:
            return _Plan(
                header=header,
                build=_builder(source, module, absent),
                key_map=found.key_map,
                architecture=source.name,
                found_by="--arch",
                notes=(*source.notes, *_absent_note(absent), *notes_of(found, others)),
                preprocessing=_told_preprocessing(source, module, metadata),
            )
        if closest is None or found.faults < closest.faults:
            closest = found
    assert closest is not None  # sources() yields or raises
    raise LoadError(
        f"--arch {quoted(arch)} does not fit {located(header.path)}: {closest.describe()}; "
        f"{_way_out(header)}"
    )


def _builder(
    source: Source, module: nn.Module, absent: Sequence[str]
) -> Callable[[bool], nn.Module]:
    """Return what hands out the module already built, or the same one built on the CPU."""

    def build(on_meta: bool) -> nn.Module:
        if on_meta:
            return module
        fresh = source.build(on_meta=False)
        _remove(fresh, absent)
        return fresh

    return build


def _matched(arch: str, module: nn.Module, header: Header) -> tuple[Match, list[str]]:
    """Return the best match, and the prefixes of every encoder in the file that fits as well.

    Raises:
        AmbiguousArchitecture: several fit, and nothing says which to take.
    """
    try:
        expected = {
            name: tuple(tensor.shape)
            for name, tensor in module.state_dict().items()
            if not name.endswith(UNUSED)
        }
    except Exception as error:
        raise ConfigError(
            f"--arch {quoted(arch)}: its weights cannot be listed: {reason(error)}"
        ) from error
    prefixes = prefixes_of(expected, header)[:MAX_ENCODERS]
    matches = {prefix: match(expected, header, prefix, others=prefixes) for prefix in prefixes}
    fitting = [prefix for prefix in matches if matches[prefix].complete]
    if fitting:
        return matches[preferred(fitting, header)], fitting
    return min(matches.values(), key=lambda found: found.faults), []


def _absent_heads(module: nn.Module, found: Match) -> tuple[str, ...]:
    """Return the module's heads of which the file holds nothing."""
    missing = set(found.missing)
    absent = []
    for name, child in module.named_children():
        needed = {f"{name}.{key}" for key in child.state_dict() if not key.endswith(UNUSED)}
        if is_head(name) and needed and needed <= missing:
            absent.append(name)
    return tuple(absent)


def _remove(module: nn.Module, names: Iterable[str]) -> None:
    for name in names:
        setattr(module, name, nn.Identity())


def _absent_note(names: Sequence[str]) -> tuple[str, ...]:
    return (f"not in the file, so left out: {', '.join(names)}",) if names else ()


def _way_out(header: Header) -> str:
    """Say how a file might be read that does not fit ``--arch``."""
    try:
        return f"without --arch it reads as {identify(header).spec}"
    except LoadError:
        return "pass the --arch that it was trained with"


def _told_preprocessing(source: Source, module: nn.Module, metadata: Metadata) -> Preprocessing:
    """Return the library's preprocessing, what the file's metadata say going first."""
    preprocessing = source.describe(module) or Preprocessing()
    said = {"image_size": metadata.image_size, "mean": metadata.mean, "std": metadata.std}
    return _with(preprocessing, said, "the file's metadata")


def _overridden(
    preprocessing: Preprocessing,
    image_size: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Preprocessing:
    said = {
        "image_size": image_size,
        "mean": None if mean is None else tuple(map(float, mean)),
        "std": None if std is None else tuple(map(float, std)),
    }
    options = [f"--{name.replace('_', '-')}" for name, value in said.items() if value is not None]
    return _with(preprocessing, said, ", ".join(options))


def _with(preprocessing: Preprocessing, said: Mapping[str, Any], source: str) -> Preprocessing:
    """Return the preprocessing with those of its values replaced that are not None."""
    known = {name: value for name, value in said.items() if value is not None}
    if not known:
        return preprocessing
    rest = "" if len(known) == len(said) else f", else {preprocessing.source}"
    return replace(preprocessing, **known, source=f"{source}{rest}")


def _check_preprocessing(
    image_size: int | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> None:
    if image_size is not None and not 1 <= image_size <= MAX_IMAGE_SIZE:
        raise ConfigError(f"--image-size {image_size}: must lie between 1 and {MAX_IMAGE_SIZE}")
    for option, values in (("--mean", mean), ("--std", std)):
        if values is None:
            continue
        if len(values) != 3 or not all(math.isfinite(value) for value in values):
            raise ConfigError(f"{option}: must be three numbers, one per channel")
        if option == "--std" and min(values) <= 0:
            raise ConfigError("--std: must be positive")


def _with_weights(plan: _Plan) -> nn.Module:
    """Build the module and give it the file's weights, as float32 copies of its own."""
    path = plan.header.path
    module = plan.build(True)
    if _computes_on_meta(module):
        module = plan.build(False)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            state = _state(plan, module, file.get_tensor)
        module.load_state_dict(state, strict=True, assign=True)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise LoadError(
            f"{located(path)}: the weights cannot be read: {reason(error)}; if the file changed "
            "meanwhile, try again"
        ) from error
    return module


def _computes_on_meta(module: nn.Module) -> bool:
    """Tell whether the module holds values on the meta device that no file will replace."""
    saved = set(module.state_dict())
    buffers = any(buffer.is_meta for name, buffer in module.named_buffers() if name not in saved)
    return buffers or any(
        isinstance(value, Tensor) and value.is_meta
        for part in module.modules()
        for value in vars(part).values()
    )


def _state(plan: _Plan, module: nn.Module, read: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """Return every tensor of the module's state, read from the file."""
    names = {inner: name for name, inner in plan.key_map.items()}
    state = {}
    for inner, wanted in module.state_dict().items():
        if inner.endswith(UNUSED):
            state[inner] = torch.zeros(wanted.shape, dtype=torch.long)
            continue
        floating = wanted.is_floating_point()
        if floating:
            check_dtypes(plan.header, [names[inner]])
        tensor = read(names[inner])
        if tensor.is_floating_point() != floating:
            raise ValueError(f"tensor {names[inner]} holds floats where integers belong")
        # The file's tensors lie in its memory map, which must not outlive this call.
        kind = torch.float32 if floating else wanted.dtype
        state[inner] = tensor.to(kind, copy=True, memory_format=torch.contiguous_format)
    return state


def _is_convolutional(module: nn.Module) -> bool:
    """Tell convolutional networks from transformers, whose only convolution makes the patches."""
    return sum(isinstance(part, nn.Conv2d) for part in module.modules()) > 1


def _probe(encoder: Encoder) -> None:
    """Embed grey images, so that an encoder that cannot do it is refused here."""
    path, size = located(encoder.provenance.path), encoder.image_size
    advice = "try another --image-size, or the --arch that fits"
    try:
        with torch.random.fork_rng(devices=[]):
            shape = tuple(encoder(torch.full((2, 3, size, size), 0.5)).shape)
            dimension = encoder.embedding_dim
    except Exception as error:
        raise LoadError(
            f"{path}: {encoder.provenance.architecture} fails on {size}x{size} images: "
            f"{reason(error)}; {advice}"
        ) from error
    if shape != (2, dimension) or dimension == 0:
        raise LoadError(
            f"{path}: {encoder.provenance.architecture} turns 2 images into {shape}, not into "
            f"one embedding each; {advice}"
        )


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is replaced or written to."""
    try:
        status = path.stat()
    except OSError as error:
        raise LoadError(f"{located(path)}: cannot be read: {os_reason(error)}") from error
    return status.st_ino, status.st_size, status.st_mtime_ns
