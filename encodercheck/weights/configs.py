"""What a model folder says of its model: the configurations of timm, open_clip and transformers.

They are somebody else's text. Only plain values of known fields are used; names of code, of other
repositories and of weights elsewhere are not, and numbers are bounded before anything is built.
Then the model is built on the meta device, which takes no memory, and stopped where it grows beyond
what any encoder is.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as registration
from torch.overrides import TorchFunctionMode

from encodercheck.errors import ConfigError, LoadError
from encodercheck.preprocessing import Preprocessing
from encodercheck.weights import hf_transformers, identify, index
from encodercheck.weights.build import (
    REFUSED,
    Source,
    library,
    open_clip_tower,
    sources,
    split,
    timm_source,
)
from encodercheck.weights.checkpoint import Checkpoint
from encodercheck.weights.folder import OPEN_CLIP_CONFIG, PROCESSOR, check_inside, read_json
from encodercheck.weights.header import located, quoted, reason
from encodercheck.weights.match import UNUSED, prefixes_of
from encodercheck.weights.metadata import checked_triple

# What a number may be at most, by its name; the first pattern that is found in it decides.
LIMITS = (
    (re.compile(r"window|kernel|stride", re.IGNORECASE), 32),
    (re.compile(r"depth|layer|block|stage|repeat|level", re.IGNORECASE), 1_000),
    (re.compile(r""), 2**16),
)
MAX_SIDE = 1_024
# Attention takes the fourth power of it.
MAX_PATCHES_A_SIDE = 128
MAX_ITEMS = 64
MAX_NESTING = 6
MAX_TEXT = 100
# Submodules and parameters. The largest encoder of timm has 4,400.
MAX_PARTS = 6_000
# Numbers beside those of the weights, such as indices of relative positions; likewise 25 millions.
MAX_COMPUTED = 2**25

# What timm lets a pretrained_cfg decide of how a model is built and fed.
TIMM_FIELDS = ("input_size", "fixed_input_size", "mean", "std", "crop_pct", "interpolation")
# One of these tells timm's configurations from those of others who call something architecture.
TIMM_MARKS = frozenset({"pretrained_cfg", "model_args", "num_features", "input_size", "first_conv"})
TRANSFORMERS_MARKS = frozenset({"transformers_version", "architectures", "auto_map"})
# Arguments of timm's that are read here and not passed on.
OWN_ARGUMENTS = frozenset({"num_classes", "in_chans"})
# With a device or a dtype of its own, a model would not be on the meta device.
PLACES = frozenset({"device", "dtype"})


@dataclass(frozen=True)
class Declared:
    """A way to build what a configuration names, and the words for where that was found.

    ``heads`` are tensors that its files may have beside those of the image tower; ``size`` is the
    side of the images that the source is built for, None where that is the library's to know.
    """

    source: Source
    found_by: str
    heads: Container[str] = ()
    size: int | None = None


def declared(configs: Sequence[Path], checkpoint: Checkpoint | None = None) -> Iterator[Declared]:
    """Yield what the configurations beside a file say it is, the likeliest first.

    Where the tensors of ``checkpoint`` are those of another image size, that follows what is said.

    Raises:
        LoadError: a configuration cannot be read, or says something that cannot be meant.
        ConfigError: the library that it needs is not installed.
    """
    processor = next((path for path in configs if path.name == PROCESSOR), None)
    for path in configs:
        if path == processor:
            continue
        values = _read(path)
        if _is_timm(values):
            yield from _sized(path, partial(_timm, path, values), checkpoint)
        elif _is_open_clip(path, values):
            yield from _sized(path, partial(_open_clip, path, values), checkpoint)
        elif _is_transformers(values):
            yield _transformers(path, values, processor)


def _read(path: Path) -> dict[str, Any]:
    check_inside(path, path.parent)
    return read_json(path)


def _is_timm(values: Mapping[str, Any]) -> bool:
    name = values.get("architecture")
    if not isinstance(name, str) or not TIMM_MARKS.isdisjoint(values):
        return isinstance(name, str)
    try:
        return timm_source(name, {}) is not None
    except ConfigError:
        return False


def _is_open_clip(path: Path, values: Mapping[str, Any]) -> bool:
    return path.name == OPEN_CLIP_CONFIG or isinstance(values.get("model_cfg"), dict)


def _is_transformers(values: Mapping[str, Any]) -> bool:
    name = values.get("model_type")
    return isinstance(name, str) and (
        name in hf_transformers.SUPPORTED or not TRANSFORMERS_MARKS.isdisjoint(values)
    )


def named(path: Path, arch: str) -> Source:
    """Return the source of the library's model that a model file itself names, as ``--arch`` would.

    It has to keep the limits of a configuration, for it is no more to be trusted.

    Raises:
        LoadError: it does not, or cannot be built.
        ConfigError: the library is not installed, or has no such model.
    """
    _, options = split(arch.partition(":")[2])
    check_plain(path, options)
    _check_names(path, options, REFUSED | PLACES)
    size = next((options[key] for key in ("img_size", "image_size") if key in options), None)
    _check_patches(path, options.get("patch_size"), _square(path, "img_size", size))
    source = next(sources(arch))
    _tried(path, source)
    return source


def _timm(path: Path, values: Mapping[str, Any], size: int | None = None) -> Declared:
    name, given = values["architecture"], values.get("model_args") or {}
    # Older files have the fields at the top.
    pretrained = values.get("pretrained_cfg") or values
    if not isinstance(given, dict) or not isinstance(pretrained, dict):
        raise _invalid(path, "model_args or pretrained_cfg is not an object")
    fields = {key: pretrained[key] for key in TIMM_FIELDS if pretrained.get(key) is not None}
    check_plain(path, {"model_args": given, "pretrained_cfg": fields})
    _check_names(path, given, (REFUSED - OWN_ARGUMENTS) | PLACES)
    _check_channels(path, given, fields)
    arguments = {key: value for key, value in given.items() if key not in OWN_ARGUMENTS}
    if arguments.get("dynamic_img_size") or arguments.get("strict_img_size") is False:
        fields["fixed_input_size"] = False
    side = _square(path, "input_size", fields.get("input_size", [3])[1:] or None)
    built_for = size or _square(path, "img_size", arguments.get("img_size"))
    if built_for is not None:
        arguments["img_size"] = built_for
    if fields.get("fixed_input_size"):
        built_for = side = built_for or side
    source = timm_source(name, arguments, fields)
    if source is None:
        raise LoadError(
            f"{located(path)}: timm has no architecture '{quoted(name)}'; update timm, or pass "
            "--arch"
        )
    _check_patches(path, arguments.get("patch_size"), side or built_for)
    # As timm: images of another size than the position embeddings are for may be no mistake.
    said = _said(path, fields, side or built_for)
    return Declared(
        source.described(said),
        f"{path.name} (timm)",
        _classifier(pretrained.get("classifier")),
        built_for,
    )


def _check_channels(path: Path, given: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    sides = fields.get("input_size", [3])
    if not isinstance(sides, list) or len(sides) not in (1, 3):
        raise _invalid(path, "input_size is not [3, H, W]")
    for channels in (sides[0], given.get("in_chans")):
        if channels not in (None, 3):
            raise _unscannable(path, f"images of {quoted(channels, 24)} channels, not RGB")


def _classifier(said: Any) -> frozenset[str]:
    """Return the tensors of the classifiers that a configuration of timm's names."""
    names = said if isinstance(said, list) else [said]
    return frozenset(
        f"{name}.{kind}" for name in names if isinstance(name, str) for kind in ("weight", "bias")
    )


def _open_clip(path: Path, values: Mapping[str, Any], size: int | None = None) -> Declared:
    model, processing = values.get("model_cfg"), values.get("preprocess_cfg") or {}
    if not isinstance(model, dict) or not isinstance(processing, dict):
        raise _invalid(path, "model_cfg or preprocess_cfg is missing or no object")
    vision, width, quick_gelu = (
        model.get("vision_cfg"),
        model.get("embed_dim"),
        model.get("quick_gelu") or False,
    )
    if not isinstance(vision, dict) or type(width) is not int or not isinstance(quick_gelu, bool):
        raise _invalid(path, "vision_cfg, embed_dim or quick_gelu is missing or no such thing")
    check_plain(path, {"embed_dim": width, "vision_cfg": vision, "preprocess_cfg": processing})
    _check_names(path, vision, PLACES)
    trunk = vision.get("timm_model_name")
    if trunk is not None and (not isinstance(trunk, str) or ":" in trunk):
        raise _invalid(path, "timm_model_name is no name of timm's")
    side = size or _square(path, "image_size", vision.get("image_size")) or 224
    _check_patches(path, vision.get("patch_size"), side)
    open_clip = library("open_clip")
    default = Preprocessing(
        side,
        open_clip.OPENAI_DATASET_MEAN,
        open_clip.OPENAI_DATASET_STD,
        "open_clip's default",
    )
    make = partial(open_clip_tower, width, {**vision, "image_size": side}, quick_gelu)
    source = Source(f"open_clip's {path.name}", make, lambda module: default)
    said = _said(path, processing, side)
    return Declared(source.described(said), f"{path.name} (open_clip)", size=side)


def _transformers(path: Path, values: Mapping[str, Any], processor: Path | None) -> Declared:
    with _few_parts():
        source = hf_transformers.towers(values, located(path))
    if processor is not None:
        source = hf_transformers.processed(source, _read(processor), located(processor))
    return Declared(source, f"{path.name} (transformers)", heads=hf_transformers.BESIDE)


def _sized(
    path: Path, describe: Callable[[int | None], Declared], checkpoint: Checkpoint | None
) -> Iterator[Declared]:
    """Yield what a configuration says, and where the tensors are of another image size, that."""
    said = _with_steps(describe(None))
    module = _tried(path, said.source)
    yield said
    size = None if checkpoint is None else _size_in(checkpoint, module, said)
    if size is None:
        return
    other = _with_steps(describe(size))
    try:
        _tried(path, other.source)
    except LoadError:
        return  # the library cannot build it for images of that size
    note = f"{path.name} says {said.size} px, the position embeddings are for {size} px"
    yield replace(other, source=replace(other.source, notes=(*other.source.notes, note)))


def _size_in(checkpoint: Checkpoint, module: nn.Module, said: Declared) -> int | None:
    """Return the image size that the tensors are for, None where that is the one said."""
    shapes = identify.shapes_of(checkpoint)
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
        if not name.endswith(UNUSED)
    }
    prefix = prefixes_of(expected, checkpoint)[0]
    built_for = said.size or Preprocessing().image_size
    if any(prefix + name not in shapes for name in expected):
        return None
    entry = index.Entry(said.source.name, expected, frozenset(), frozenset(expected), built_for, ())
    size = index.fitting_size(entry, prefix, shapes)
    return size if size != built_for and size is not None and size <= MAX_SIDE else None


def _tried(path: Path, source: Source) -> nn.Module:
    """Build a source on the meta device, so that what cannot be meant never takes real memory.

    Raises:
        LoadError: it cannot be built, or is larger than any encoder.
    """
    try:
        with (
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(),
            torch.device("meta"),
            _few_parts(),
        ):
            warnings.simplefilter("ignore")
            module = source.make()
            saved = module.state_dict()
    except Exception as error:
        raise _invalid(path, f"the library cannot build it ({reason(error)})") from error
    computed = sum(buffer.numel() for name, buffer in module.named_buffers() if name not in saved)
    if computed > MAX_COMPUTED:
        raise _invalid(path, f"it takes {computed} numbers beside its weights")
    return module


@contextmanager
def _few_parts() -> Iterator[None]:
    """Stop the building of a module that has more parts than any encoder."""
    count = itertools.count(1)

    def register(*arguments: Any) -> None:
        if next(count) > MAX_PARTS:
            raise ValueError(f"more than {MAX_PARTS} parts")

    handles = [
        registration.register_module_module_registration_hook(register),
        registration.register_module_parameter_registration_hook(register),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _RealSteps(TorchFunctionMode):
    """Keeps on the CPU the few numbers whose values timm before 1.0.20 asks for as it builds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.linspace, torch.tensor):
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def _with_steps(said: Declared) -> Declared:
    make = said.source.make

    def stepping() -> nn.Module:
        with _RealSteps():
            return make()

    return replace(said, source=replace(said.source, make=stepping))


def _said(path: Path, values: Mapping[str, Any], size: int | None) -> dict[str, Any]:
    """Return the preprocessing that a configuration gives, with its source; None where silent."""
    try:
        return {
            "source": path.name,
            "image_size": size,
            "mean": checked_triple("mean", values.get("mean")),
            "std": checked_triple("std", values.get("std")),
        }
    except ValueError as error:
        raise _invalid(path, str(error)) from error


def _square(path: Path, key: str, value: Any) -> int | None:
    """Return the side of a square, given once or twice."""
    sides = value if isinstance(value, list) else [value, value]
    if sides == [None, None]:
        return None
    if len(sides) != 2 or not all(type(side) is int and side >= 1 for side in sides):
        raise _invalid(path, f"{key} is no size of images")
    if sides[0] != sides[1]:
        raise _unscannable(path, f"images of {sides[0]}x{sides[1]} pixels, not square")
    if sides[0] > MAX_SIDE:
        raise _invalid(path, f"{key} is {sides[0]} (at most {MAX_SIDE})")
    return int(sides[0])


def _check_patches(path: Path, patch: Any, side: int | None) -> None:
    sizes = patch if isinstance(patch, list) else [patch]
    smallest = min((size for size in sizes if type(size) is int and size > 0), default=None)
    side = side or Preprocessing().image_size
    if smallest is not None and side // smallest > MAX_PATCHES_A_SIDE:
        raise _invalid(path, f"images of {side} pixels a side have too many patches of {smallest}")


def _check_names(path: Path, values: Any, refused: Container[str]) -> None:
    """See that no argument has a name that would load weights or leave the meta device.

    Raises:
        LoadError: one has.
    """
    for item in values if isinstance(values, list) else []:
        _check_names(path, item, refused)
    for name, item in values.items() if isinstance(values, dict) else []:
        if name in refused:
            raise _invalid(path, f"it has the argument {name}")
        _check_names(path, item, refused)


def check_plain(path: Path, values: Any, key: str = "", depth: int = 0) -> None:
    """See that values are numbers, texts and short lists of them, small enough to build with.

    Raises:
        LoadError: they are not.
    """
    if depth > MAX_NESTING:
        raise _invalid(path, "it is nested too deeply")
    if isinstance(values, dict | list):
        if len(values) > MAX_ITEMS:
            raise _invalid(path, f"'{quoted(key)}' has {len(values)} items")
        items = values.items() if isinstance(values, dict) else [(key, item) for item in values]
        for name, item in items:
            check_plain(path, item, name, depth + 1)
    elif isinstance(values, str) and len(values) > MAX_TEXT:
        raise _invalid(path, f"'{quoted(key)}' has {len(values)} characters")
    elif isinstance(values, int | float) and not isinstance(values, bool):
        most = next(limit for pattern, limit in LIMITS if pattern.search(key))
        if not abs(values) <= most:
            raise _invalid(path, f"{quoted(key)} is {quoted(values, 24)} (at most {most})")


def _invalid(path: Path, fault: str) -> LoadError:
    return LoadError(
        f"{located(path)}: is no usable configuration: {fault}; download the folder again, or pass "
        "--arch"
    )


def _unscannable(path: Path, what: str) -> LoadError:
    return LoadError(
        f"{located(path)}: the encoder reads {what}; encodercheck scans encoders of square RGB "
        "images"
    )
