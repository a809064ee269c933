"""encodercheck's own entry in a file's metadata: what no tensor can show."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from encodercheck.errors import ConfigError, LoadError
from encodercheck.preprocessing import Triple
from encodercheck.weights.checkpoint import Checkpoint
from encodercheck.weights.header import located, quoted, strict_json
from encodercheck.weights.spec import ResNetSpec

# Whose models an architecture may name.
LIBRARIES = ("torchvision", "timm", "open_clip")
METADATA_KEY = "encodercheck"
MAX_METADATA = 10_000
MAX_IMAGE_SIZE = 4096
METADATA = "the file's metadata"


@dataclass(frozen=True)
class Metadata:
    """What encodercheck's own entry in a file's metadata says; None where it is silent.

    The architecture is either a ``spec`` or, as ``arch``, what ``--arch`` would say.
    """

    spec: ResNetSpec | None = None
    arch: str | None = None
    image_size: int | None = None
    mean: Triple | None = None
    std: Triple | None = None

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The parts of the preprocessing, None where it is silent."""
        return {"image_size": self.image_size, "mean": self.mean, "std": self.std}


def callable_spec(arch: str | None) -> str:
    """Return ``arch`` where it is a ``package.module:callable``: what to scan without a model.

    Raises:
        ConfigError: it is not, so that there is nothing to scan.
    """
    if arch is None or ":" not in arch or arch.partition(":")[0] in LIBRARIES:
        raise ConfigError(
            "no MODEL: name a .safetensors file, a model folder, hf://ORG/NAME or fixture:NAME, "
            "or pass --arch package.module:callable for a callable from images to embeddings"
        )
    return arch


def read_metadata(checkpoint: Checkpoint) -> Metadata:
    """Read encodercheck's own entry: ``{"architecture", "image_size", "mean", "std"}``.

    Every key may be absent, and so may the entry; keys that a later version added are passed over.

    Raises:
        LoadError: the entry is too large, or says something that cannot be meant.
    """
    text = checkpoint.metadata.get(METADATA_KEY)
    if text is None:
        return Metadata()
    try:
        if len(text) > MAX_METADATA:
            raise ValueError(f"it is longer than {MAX_METADATA} characters")
        values = strict_json(text)
        if not isinstance(values, dict):
            raise ValueError("it is not an object")
        architecture = values.get("architecture")
        named = isinstance(architecture, str)
        return Metadata(
            spec=None if architecture is None or named else ResNetSpec.from_dict(architecture),
            arch=_checked_arch(architecture) if named else None,
            image_size=checked_image_size(values.get("image_size")),
            mean=checked_triple("mean", values.get("mean")),
            std=checked_triple("std", values.get("std")),
        )
    except ValueError as error:
        raise LoadError(
            f"{located(checkpoint.path)}: the metadata entry '{METADATA_KEY}' is invalid: "
            f"{quoted(error, 200)}; save the file without that entry"
        ) from error


def metadata_for(
    architecture: ResNetSpec | str, *, image_size: int, mean: Triple, std: Triple
) -> dict[str, str]:
    """Return the ``__metadata__`` that makes a saved encoder load exactly as it was.

    ``architecture`` is a spec, or a library's model as ``--arch`` takes it.
    """
    values = {
        "architecture": architecture if isinstance(architecture, str) else architecture.to_dict(),
        "image_size": image_size,
        "mean": list(mean),
        "std": list(std),
    }
    return {METADATA_KEY: json.dumps(values)}


def _checked_arch(value: Any) -> str:
    """Return the name of a library's model; a file must not name code of its own.

    Raises:
        ValueError: it is something else.
    """
    prefixes = tuple(f"{library}:" for library in LIBRARIES)
    if not isinstance(value, str) or not value.startswith(prefixes):
        raise ValueError(f"the architecture does not begin with {': or '.join(LIBRARIES)}:")
    return value


def checked_image_size(value: Any) -> int | None:
    """Return an image size from JSON.

    Raises:
        ValueError: it is none.
    """
    if value is None or (type(value) is int and 1 <= value <= MAX_IMAGE_SIZE):
        return value
    raise ValueError(f"image_size is not an integer from 1 to {MAX_IMAGE_SIZE}")


def checked_triple(name: str, value: Any) -> Triple | None:
    """Return a mean or standard deviation from JSON.

    Raises:
        ValueError: it is none.
    """
    if value is None:
        return None
    numbers = isinstance(value, list) and all(type(item) in (int, float) for item in value)
    if not numbers or len(value) != 3 or not all(math.isfinite(item) for item in value):
        raise ValueError(f"{name} is not three numbers")
    if name == "std" and min(value) <= 0:
        raise ValueError("std is not positive")
    return float(value[0]), float(value[1]), float(value[2])
