"""What a report can show beside its numbers: pictures, and values to plot.

The harness records exhibits while checks run, for formats that can draw. They are no part of the
verdict, of equality between findings, or of the JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Comparison:
    """The measurement ``name`` beside what clean encoders measured.

    ``scale`` is the null's, "gain", "size" or "shift"; ``source`` says which encoders.
    """

    name: str
    value: float
    clean: tuple[float, ...]
    scale: str
    source: str
    p_value: float


@dataclass(frozen=True)
class Cosines:
    """Cosines of all pairs of some images' embeddings, without and with a trigger on them."""

    clean: tuple[float, ...]
    stamped: tuple[float, ...]
    images: int


@dataclass(frozen=True)
class Picture:
    """A small picture: ``png`` bytes, ``width`` x ``height`` pixels, and what it shows in words."""

    caption: str
    alt: str
    png: bytes = field(repr=False)
    width: int
    height: int


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures under a title."""

    title: str
    rows: tuple[tuple[Picture, ...], ...]


@dataclass(frozen=True)
class Note:
    """Why something is not shown."""

    text: str


Exhibit = Comparison | Cosines | Gallery | Note
