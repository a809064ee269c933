"""What a model folder says of its model: the configurations of timm, open_clip and transformers.

They are somebody else's text. Only plain values of known fields are used; names of code, of other
repositories and of weights elsewhere are not, and numbers are bounded before anything is built.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from encodercheck.errors import LoadError
from encodercheck.weights import hf_transformers
from encodercheck.weights.build import REFUSED, Source, library, open_clip_tower, timm_source
from encodercheck.weights.folder import PROCESSOR, read_json
from encodercheck.weights.header import located, quoted
from encodercheck.weights.metadata import checked_image_size, checked_triple

MAX_NUMBER = 2**16
MAX_DEPTH = 1_000
MAX_ITEMS = 64
MAX_NESTING = 6
DEPTHS = re.compile(r"depth|layer|block|stage|repeat", re.IGNORECASE)
# What timm lets a pretrained_cfg decide of how a model is built and fed.
TIMM_FIELDS = ("input_size", "fixed_input_size", "mean", "std", "crop_pct", "interpolation")


@dataclass(frozen=True)
class Declared:
    """A way to build what a configuration names, and the words for where that was found.

    ``normalisation`` is the mean and standard deviation that it gives, with their source;
    ``heads`` are tensors that its files may have beside those of the image tower.
    """

    source: Source
    found_by: str
    normalisation: Mapping[str, Any] = field(default_factory=dict)
    heads: Container[str] = ()


def declared(configs: Sequence[Path]) -> Iterator[Declared]:
    """Yield what the configurations beside a file say it is, the likeliest first.

    Raises:
        LoadError: a configuration cannot be read, or says something that cannot be meant.
        ConfigError: the library that it needs is not installed.
    """
    processor = next((path for path in configs if path.name == PROCESSOR), None)
    for path in configs:
        if path == processor:
            continue
        values = read_json(path)
        if isinstance(values.get("architecture"), str):
            yield _timm(path, values)
        elif isinstance(values.get("model_cfg"), dict):
            yield Declared(_open_clip(path, values), f"{path.name} (open_clip)")
        elif isinstance(values.get("model_type"), str):
            yield _transformers(path, values, processor)


def _timm(path: Path, values: Mapping[str, Any]) -> Declared:
    name, arguments = values["architecture"], values.get("model_args") or {}
    # Older files have the fields at the top.
    pretrained = values.get("pretrained_cfg") or values
    if not isinstance(arguments, dict) or not isinstance(pretrained, dict):
        raise _invalid(path, "model_args or pretrained_cfg is not an object")
    refused = sorted(set(arguments) & REFUSED)
    if refused:
        raise _invalid(path, f"model_args has {refused[0]}")
    fields = {key: pretrained[key] for key in TIMM_FIELDS if pretrained.get(key) is not None}
    check_plain(path, {"model_args": arguments, "pretrained_cfg": fields})
    sides = fields.get("input_size")
    if sides is not None and (not isinstance(sides, list) or len(sides) != 3 or sides[0] != 3):
        raise _invalid(path, "input_size is not [3, H, W]")
    source = timm_source(name, arguments, fields)
    if source is None:
        raise LoadError(
            f"{located(path)}: timm has no architecture '{quoted(name)}'; update timm, or pass "
            "--arch"
        )
    said = _said(path, fields, size=sides[-1] if sides else None)
    return Declared(source.described(said), f"{path.name} (timm)", {**said, "image_size": None})


def _open_clip(path: Path, values: Mapping[str, Any]) -> Source:
    model, processing = values["model_cfg"], values.get("preprocess_cfg") or {}
    vision, width = model.get("vision_cfg"), model.get("embed_dim")
    if not isinstance(vision, dict) or not isinstance(processing, dict) or type(width) is not int:
        raise _invalid(path, "vision_cfg, embed_dim or preprocess_cfg is missing or no such thing")
    check_plain(path, {"embed_dim": width, "vision_cfg": vision, "preprocess_cfg": processing})
    trunk = vision.get("timm_model_name")
    if trunk is not None and (not isinstance(trunk, str) or ":" in trunk):
        raise _invalid(path, "timm_model_name is no name of timm's")
    size = vision.get("image_size", 224)

    def make() -> nn.Module:
        return open_clip_tower(width, vision, bool(model.get("quick_gelu", False)))

    library("open_clip")
    side = size if isinstance(size, int) else size[-1]
    name = f"open_clip's {path.name}"
    return Source(name, make).described(_said(path, processing, size=side))


def _transformers(path: Path, values: Mapping[str, Any], processor: Path | None) -> Declared:
    source = hf_transformers.towers(values, located(path))
    if processor is not None:
        source = hf_transformers.processed(source, read_json(processor), located(processor))
    return Declared(source, f"{path.name} (transformers)", heads=hf_transformers.BESIDE)


def _said(path: Path, values: Mapping[str, Any], size: Any) -> dict[str, Any]:
    """Return the preprocessing that a configuration gives, with its source; None where silent."""
    try:
        return {
            "source": path.name,
            "image_size": checked_image_size(size),
            "mean": checked_triple("mean", values.get("mean")),
            "std": checked_triple("std", values.get("std")),
        }
    except ValueError as error:
        raise _invalid(path, str(error)) from error


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
    elif isinstance(values, int | float) and not isinstance(values, bool):
        most = MAX_DEPTH if DEPTHS.search(key) else MAX_NUMBER
        if not abs(values) <= most:
            raise _invalid(path, f"{quoted(key)} is {quoted(values, 24)}")


def _invalid(path: Path, fault: str) -> LoadError:
    return LoadError(
        f"{located(path)}: is no usable configuration: {fault}; download the folder again, or pass "
        "--arch"
    )
