"""Options that several commands share."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from encodercheck.errors import ConfigError

Triple = tuple[float, float, float]
SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


class ProfileName(str, Enum):
    """The names of the profiles in ``encodercheck.profiles``."""

    quick = "quick"
    standard = "standard"
    thorough = "thorough"


class DeviceName(str, Enum):
    """Where the encoder runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


def triple(text: str) -> Triple:
    """Parse "R,G,B"."""
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not three numbers R,G,B") from None
    return red, green, blue


def size(text: str) -> int:
    """Parse a number of bytes: "2GB" is 2 * 10**9, "2GiB" 2 * 2**30, "2000" itself.

    Raises:
        ConfigError: ``text`` is no size, or none at all.
    """
    found = SIZE.fullmatch(text.strip())
    if found is None or (found[3] and not found[2]):
        raise ConfigError(f"--max-memory {text!r}: not a size; write 2GB, 512MiB or bytes")
    power = "kmgt".find(found[2].lower()) + 1 if found[2] else 0
    count = int(float(found[1]) * (1024 if found[3] else 1000) ** power)
    if count < 1:
        raise ConfigError(f"--max-memory {text!r}: nothing fits into that; name a larger size")
    return count


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A .safetensors file, a model folder, hf://ORG/NAME[@REV], or fixture:NAME.",
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="A torchvision, timm or open_clip name, with options perhaps (NAME,key=value), or "
        "package.module:callable.",
    ),
]
ImageSize = Annotated[
    int | None, typer.Option(metavar="N", min=8, max=4096, help="The side of the input in pixels.")
]
# Not Triple | None: Typer would take three arguments for a tuple.
Mean = Annotated[
    Any,
    typer.Option(metavar="R,G,B", parser=triple, help="Mean of the pixels, in [0, 1]."),
]
Std = Annotated[
    Any,
    typer.Option(metavar="R,G,B", parser=triple, help="Standard deviation of the pixels."),
]
Images = Annotated[
    str | None,
    typer.Option(
        metavar="SRC",
        help="A folder of clean images, or a data set on disk: cifar10:DIR, cifar100:DIR, "
        "stl10:DIR, svhn:DIR, gtsrb:DIR (default: generated ones).",
    ),
]
Profile = Annotated[ProfileName, typer.Option(help="How hard to look.")]
Device = Annotated[DeviceName, typer.Option(help="Where the encoder runs.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, max=2**31 - 1, help="The seed of the scan.")]
Null = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Further clean encoders to compare with, as calibrate wrote them."
    ),
]
MaxMemory = Annotated[
    int | None,
    typer.Option(metavar="SIZE", parser=size, help="Bound the memory at work: 2GB, 512MiB, bytes."),
]
Keyword = Annotated[
    str,
    typer.Option("-k", metavar="EXPR", help="Run the checks that match, as pytest -k does."),
]
Checks = Annotated[
    list[Path] | None,
    typer.Option("--checks", metavar="PATH", help="Further check_*.py, a file or a folder."),
]
