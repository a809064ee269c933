"""Options that several commands share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from encodercheck.cli import completion
from encodercheck.config.keys import KEYS
from encodercheck.config.seeds import RANDOM, draw_seed
from encodercheck.config.sizes import parse_size
from encodercheck.errors import ConfigError

Triple = tuple[float, float, float]


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


class SeverityName(str, Enum):
    """The names in ``encodercheck.severities``."""

    info = "info"
    low = "low"
    medium = "medium"
    high = "high"
    critical = "critical"


def triple(text: str) -> Triple:
    """Parse "R,G,B"."""
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not three numbers R,G,B") from None
    return red, green, blue


def size(text: str) -> int:
    """Parse a number of bytes, as :func:`~encodercheck.config.sizes.parse_size` does.

    Raises:
        ConfigError: ``text`` is no size, or none at all.
    """
    try:
        return parse_size(text)
    except ValueError as error:
        raise ConfigError(f"--max-memory {text!r}: {error}") from error


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A .safetensors file, a model folder, hf://ORG/NAME[@REV], or fixture:NAME.",
        autocompletion=completion.models,
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
Tower = Annotated[
    str | None,
    typer.Option(
        metavar="PREFIX",
        help="Which encoder is meant where a file holds several: how its tensors' names begin, as "
        "teacher; . for those without a prefix.",
    ),
]
Images = Annotated[
    str | None,
    typer.Option(
        metavar="SRC",
        envvar=KEYS["images"].environment,
        help="A folder of clean images, or a data set on disk: cifar10:DIR, cifar100:DIR, "
        "stl10:DIR, svhn:DIR, gtsrb:DIR (default: generated ones).",
    ),
]
Profile = Annotated[
    ProfileName, typer.Option(envvar=KEYS["profile"].environment, help="How hard to look.")
]
Device = Annotated[
    DeviceName, typer.Option(envvar=KEYS["device"].environment, help="Where the encoder runs.")
]


def parse_seed(value: str | int) -> int:
    """Return a seed; a new one for ``random``."""
    text = str(value)
    try:
        return draw_seed(int(text) if text.isascii() and text.isdecimal() else text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} {error}") from error


Seed = Annotated[
    int,
    typer.Option(
        metavar=f"N|{RANDOM}",
        parser=parse_seed,
        envvar=KEYS["seed"].environment,
        help="The seed of the scan. random: a new one, which the report says; for gates, so that "
        "nobody can prepare a model for it.",
    ),
]
Null = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar=KEYS["null"].environment,
        help="Further clean encoders to compare with, as calibrate wrote them.",
    ),
]
MaxMemory = Annotated[
    int | None,
    typer.Option(
        metavar="SIZE",
        parser=size,
        envvar=KEYS["max-memory"].environment,
        help="Bound the memory at work: 2GB, 512MiB, bytes.",
    ),
]
Keyword = Annotated[
    str,
    typer.Option(
        "-k",
        metavar="EXPR",
        help="Run the checks that match, as pytest -k does.",
        autocompletion=completion.check_ids,
    ),
]
Checks = Annotated[
    list[Path] | None,
    typer.Option("--checks", metavar="PATH", help="Further check_*.py, a file or a folder."),
]
Artifacts = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        envvar=KEYS["artifacts"].environment,
        help="Where the witnesses of failed checks go.",
    ),
]
ARTIFACTS = Path("encodercheck-artifacts")
Strict = Annotated[
    bool,
    typer.Option(
        "--strict/--no-strict",
        envvar=KEYS["strict"].environment,
        help="An inconclusive check is exit code 2.",
    ),
]
Select = Annotated[
    list[str] | None,
    typer.Option("--select", metavar="ID", help="Run the checks of this id or pattern: EC2*."),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="ID", help="Do not run the checks of this id or pattern."),
]
Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", metavar="CHECK.NAME=VALUE", help="Replace a limit: EC202.gain=0.9; repeatable."
    ),
]
FailOn = Annotated[
    SeverityName | None,
    typer.Option(
        envvar=KEYS["fail-on"].environment,
        help="The least severity whose failures count (default: all do).",
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on where a scan with these options was interrupted."),
]
FailFast = Annotated[
    bool,
    typer.Option(
        "--fail-fast/--no-fail-fast",
        envvar=KEYS["fail-fast"].environment,
        help="Run the cheapest checks first, and none after a failure that counts.",
    ),
]
Baseline = Annotated[
    Path | None,
    typer.Option(metavar="F", help="Say what has changed since the scan that wrote F as JSON."),
]
