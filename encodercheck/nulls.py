"""The files that hold nulls: what the checks measured on clean encoders.

One file ships with the package; ``encodercheck calibrate`` writes others. Whoever finds a value
unusual says so against these, which is why a file is read as strictly as a model is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encodercheck.cache import atomic_write_text
from encodercheck.errors import ConfigError
from encodercheck.methods.null import LEAST_ENCODERS, SCALES, Null
from encodercheck.saved import read_saved
from encodercheck.sketch import NUMBERS, Sketch, is_copy
from encodercheck.weights.header import (
    located,
)

if TYPE_CHECKING:
    from encodercheck.report import Measurement, Report

# Measures an encoder's traits, see :mod:`encodercheck.methods.traits`.
Traits = Callable[[], Mapping[str, float]]
SCHEMA = "encodercheck.null/1"
SHIPPED = Path(__file__).with_name("nulls.json")

# A thousand encoders take a megabyte and a half.
MOST_BYTES = 10_000_000
# What parsing that may take in memory; see check_structure.
MOST_PARSING = 200_000_000
LONGEST_TEXT = 1_000
SHA256 = re.compile("[0-9a-f]{64}")
STRUCTURE = re.compile("[0-9a-f]{16}")
MAKE_ANOTHER = "make it again with `encodercheck calibrate`"


@dataclass(frozen=True)
class CleanEncoder:
    """What the checks measured on one clean encoder: ``values`` by ``ID.name``, as "EC202.gain".

    ``profile``, ``images`` and ``images_digest`` say how: a file has them once for all of its
    encoders. The digest is that of a folder's files, however the folder is spelled; None where the
    name says it all.
    ``structure`` is :attr:`Encoder.structure`, and ``sketch`` that of its weights, see
    :mod:`~encodercheck.sketch`; None where they are not known.
    """

    architecture: str
    image_size: int
    name: str
    sha256: str
    values: Mapping[str, float]
    profile: str = "standard"
    images: str = "procedural"
    images_digest: str | None = None
    structure: str | None = None
    sketch: Sketch | None = None

    @classmethod
    def of(
        cls, report: Report, *, name: str | None = None, sketch: Sketch | None = None
    ) -> CleanEncoder:
        """Return what ``report`` measured; what is not finite is left out.

        Where a check measures a name several times, or has parameters, the value nearest to the
        wrong side counts: an encoder under test is held against the worst of the clean ones.
        """
        values: dict[str, float] = {}
        for finding in report.findings:
            for measurement in finding.measurements:
                key = f"{finding.id.partition('[')[0]}.{measurement.name}"
                # A p-value is against a null itself.
                if math.isfinite(measurement.value) and measurement.name != "p_value":
                    values[key] = _worse(measurement, values.get(key, measurement.value))
        model = report.model
        return cls(
            architecture=model["architecture"],
            image_size=model["image_size"],
            name=model["path"] if name is None else name,
            sha256=model["sha256"],
            values=values,
            profile=report.profile,
            images=report.images["source"],
            images_digest=report.images.get("digest"),
            structure=model.get("structure"),
            sketch=sketch,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the encoder as the file has it."""
        known = {} if self.structure is None else {"structure": self.structure}
        sketched = {} if self.sketch is None else {"sketch": list(self.sketch)}
        return {
            "architecture": self.architecture,
            "image_size": self.image_size,
            **known,
            "name": self.name,
            "sha256": self.sha256,
            **sketched,
            "values": dict(sorted(self.values.items())),
        }

    def is_copy(self, sha256: str, sketch: Sketch | None) -> bool:
        """Tell whether these are its weights, as a file's hash or a sketch of them has it."""
        return self.sha256 == sha256 or is_copy(self.sketch, sketch)

    def is_measured_on(self, images: str | None, digest: str | None) -> bool:
        """Tell whether it was measured on these images: by their digest, else by their name."""
        if self.images_digest is not None and digest is not None:
            return self.images_digest == digest
        return self.images == images

    def is_built_as(self, architecture: str, image_size: int, structure: str | None) -> bool:
        """Tell whether it is a network of this structure; where that is not known, by its name."""
        if self.structure is not None and structure is not None:
            return self.structure == structure
        return (self.architecture, self.image_size) == (architecture, image_size)


@dataclass(frozen=True)
class Nulls:
    """Clean encoders, and how they were measured.

    >>> Nulls().find("EC202.gain", scale="gain", architecture="resnet18", image_size=32).supported
    False
    """

    profile: str = "standard"
    images: str = "procedural"
    versions: Mapping[str, str] = field(default_factory=dict)
    encoders: tuple[CleanEncoder, ...] = ()
    images_digest: str | None = None

    @classmethod
    def read(cls, path: str | Path) -> Nulls:
        """Read a file that :meth:`write` wrote.

        Raises:
            ConfigError: the file is missing, too large, damaged, or no null.
        """
        return read_saved(
            path,
            _nulls,
            what="null",
            way_out=MAKE_ANOTHER,
            missing="name a file that `encodercheck calibrate` wrote",
            most=MOST_BYTES,
            parsing=MOST_PARSING,
        )

    @staticmethod
    def shipped() -> Nulls:
        """Return the clean encoders that come with the package."""
        return _shipped()

    def write(self, path: str | Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            ConfigError: the encoders were not all measured alike.
            OutputError: the file cannot be written.
        """
        own = self.profile, self.images, self.images_digest
        if any((e.profile, e.images, e.images_digest) != own for e in self.encoders):
            raise ConfigError(
                f"{located(path)}: one null is of one profile and one kind of images; write two"
            )
        known = {} if self.images_digest is None else {"images_digest": self.images_digest}
        content = {
            "schema": SCHEMA,
            "profile": self.profile,
            "images": self.images,
            **known,
            "versions": dict(self.versions),
            "encoders": [encoder.to_dict() for encoder in self.encoders],
        }
        atomic_write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def merged(self, other: Nulls) -> Nulls:
        """Return the encoders of both; of two with the same weights that of ``other`` stays."""
        theirs = {encoder.sha256 for encoder in other.encoders}
        kept = [encoder for encoder in self.encoders if encoder.sha256 not in theirs]
        facts = self if self.encoders else other
        return replace(facts, encoders=(*kept, *other.encoders))

    def without(self, sha256: str, sketch: Sketch | None) -> tuple[Nulls, tuple[CleanEncoder, ...]]:
        """Return the others than an encoder with these weights, and what was left out.

        An encoder is no reference for itself.
        """
        copies = tuple(e for e in self.encoders if e.is_copy(sha256, sketch))
        if not copies:
            return self, ()
        return replace(self, encoders=tuple(e for e in self.encoders if e not in copies)), copies

    def find(
        self,
        key: str,
        *,
        scale: str,
        architecture: str,
        image_size: int,
        structure: str | None = None,
        profile: str | None = None,
        images: str | None = None,
        images_digest: str | None = None,
    ) -> Null:
        """Return the values under ``key``, as "EC202.gain", to judge an encoder by.

        They are those of its own architecture and image size where there are enough, else those of
        all encoders, else none. What is of one architecture the ``structure`` says, whatever its
        name, see :mod:`~encodercheck.structure`; where that is not known, the name. In either case
        only those count that were measured with ``profile`` and on ``images``, which go by their
        ``images_digest`` where it is known, as long as there are enough of them. Where others had
        to do, the source says so.

        Raises:
            ValueError: there is no such scale.
        """
        if scale not in SCALES:
            raise ValueError(f"scale {scale!r}: choose one of {', '.join(SCALES)}")
        known = [encoder for encoder in self.encoders if key in encoder.values]
        same = [e for e in known if e.is_built_as(architecture, image_size, structure)]
        own = len(same) >= LEAST_ENCODERS
        chosen = same if own else known
        if len(chosen) < LEAST_ENCODERS:
            return Null((), scale, f"{len(chosen)} with {key}", own=False)
        pictures = images, images_digest
        alike = [e for e in chosen if e.profile == profile and e.is_measured_on(*pictures)]
        chosen = alike if len(alike) >= LEAST_ENCODERS else chosen
        of = _own(chosen, architecture) if own else _others(chosen, architecture, image_size)
        among = f"{len(chosen)} clean encoders of {of}{_unlike(chosen, profile, *pictures)}"
        return Null(tuple(encoder.values[key] for encoder in chosen), scale, among, own=own)


@cache
def _shipped() -> Nulls:
    return Nulls.read(SHIPPED)


def _worse(measurement: Measurement, known: float) -> float:
    at_least = measurement.direction is not None and measurement.direction.value == "at_least"
    return min(measurement.value, known) if at_least else max(measurement.value, known)


def _own(encoders: Sequence[CleanEncoder], architecture: str) -> str:
    """Say of what architecture the encoders are, which are built as the one under test."""
    names = sorted({encoder.architecture for encoder in encoders})
    if names == [architecture]:
        return architecture
    return f"the same structure ({', '.join(names)})"


def _others(encoders: Sequence[CleanEncoder], architecture: str, image_size: int) -> str:
    """Say of what architectures the encoders are, where one's own are too few."""
    others = {encoder.architecture for encoder in encoders} - {architecture}
    if not others:
        same_size = {encoder.image_size for encoder in encoders} == {image_size}
        return f"{architecture}, {'built otherwise' if same_size else 'of other image sizes'}"
    return f"{len(others)} other architecture{'s' if len(others) > 1 else ''}"


def _unlike(
    encoders: Sequence[CleanEncoder], profile: str | None, images: str | None, digest: str | None
) -> str:
    """Say how the measuring of the encoders differs from that of the scan."""
    profiles = {encoder.profile for encoder in encoders} - {profile}
    kinds = {e.images for e in encoders if not e.is_measured_on(images, digest)}
    faults = []
    if profile is not None and profiles:
        faults.append(f"with profile {', '.join(sorted(profiles))} instead of {profile}")
    if images is not None and kinds:
        faults.append(f"on other images ({', '.join(sorted(kinds))})")
    return f", measured {' and '.join(faults)}" if faults else ""


def _nulls(content: Any) -> Nulls:
    """Check everything that a file says; raise ValueError with the first fault."""
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"its schema is not {SCHEMA}")
    needed = ("schema", "profile", "images", "versions", "encoders")
    _keys(content, needed, "the file", optional=("images_digest",))
    profile, images = _text(content, "profile"), _text(content, "images")
    digest = content.get("images_digest")
    if "images_digest" in content and not SHA256.fullmatch(_text(content, "images_digest")):
        raise ValueError("images_digest is not 64 hexadecimal digits")
    versions = content["versions"]
    if not isinstance(versions, dict) or not isinstance(content["encoders"], list):
        raise ValueError("versions is no object, or encoders no list")
    encoders = tuple(
        replace(
            _encoder(entry, f"encoder {i}"), profile=profile, images=images, images_digest=digest
        )
        for i, entry in enumerate(content["encoders"])
    )
    if len({encoder.sha256 for encoder in encoders}) < len(encoders):
        raise ValueError("it has an encoder twice")
    said = {name: _text(versions, name) for name in versions}
    return Nulls(profile, images, said, encoders, digest)


def _encoder(entry: Any, place: str) -> CleanEncoder:
    needed = ("architecture", "image_size", "name", "sha256", "values")
    _keys(entry, needed, place, optional=("structure", "sketch"))
    size, values = entry["image_size"], entry["values"]
    if type(size) is not int or not 1 <= size <= 2**16:
        raise ValueError(f"{place}: image_size is no size in pixels")
    if not SHA256.fullmatch(_text(entry, "sha256")):
        raise ValueError(f"{place}: sha256 is not 64 hexadecimal digits")
    if "structure" in entry and not STRUCTURE.fullmatch(_text(entry, "structure")):
        raise ValueError(f"{place}: structure is not 16 hexadecimal digits")
    if not isinstance(values, dict):
        raise ValueError(f"{place}: values is no object")
    return CleanEncoder(
        architecture=_text(entry, "architecture"),
        image_size=size,
        name=_text(entry, "name"),
        sha256=entry["sha256"],
        values={key: _number(value, f"{place}: {key}") for key, value in values.items()},
        structure=entry.get("structure"),
        sketch=_sketch(entry["sketch"], place) if "sketch" in entry else None,
    )


def _sketch(value: Any, place: str) -> Sketch:
    if not isinstance(value, list) or len(value) != NUMBERS:
        raise ValueError(f"{place}: sketch is no list of {NUMBERS} numbers")
    numbers = tuple(_number(number, f"{place}: sketch") for number in value)
    if not any(numbers) or max(map(abs, numbers)) > 1:
        raise ValueError(f"{place}: sketch holds no numbers of length 1")
    return numbers


def _keys(value: Any, names: Iterable[str], place: str, optional: Iterable[str] = ()) -> None:
    if not isinstance(value, dict) or set(value) - set(optional) != set(names):
        raise ValueError(f"{place} must be an object of {', '.join(names)}")


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content[name]
    # It is shown in messages.
    if not isinstance(value, str) or len(value) > LONGEST_TEXT or not value.isprintable():
        raise ValueError(f"{name} is no printable text of at most {LONGEST_TEXT} characters")
    return value


def _number(value: Any, place: str) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{place} is no finite number")
    return float(value)
