"""The index of known image towers: which names and shapes each has, and which share a function.

It is shipped with the package and made by :mod:`encodercheck.weights.index_build`. Towers of one
*family* have tensors of the same names and, but for those that follow the image size, the same
shapes: a file cannot tell them apart. Towers of one *function* in a family compute the same
features, as was measured with random weights.
"""

from __future__ import annotations

import io
import json
import lzma
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encodercheck.cache import atomic_write_bytes
from encodercheck.weights.match import MAX_ENCODERS, MAX_PREFIX_PARTS
from encodercheck.weights.spec import Shape

PATH = Path(__file__).with_name("index.xz")
SCHEMA = 1

Shapes = dict[str, Shape]
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]

SIZE_OPTIONS = {"torchvision": "image_size", "timm": "img_size", "open_clip": "image_size"}
"""What each library calls the side of the images in the options of a model."""

# Fewer names than this in common are no sign of anything.
LEAST_HITS = 3
# Towers of the most names in common whose shapes are looked at too.
MOST_COMPARED = 100
# Tokens that a position embedding may hold beside the grid: class, distillation, registers.
MOST_EXTRA_TOKENS = 16


@dataclass(frozen=True)
class Entry:
    """A known image tower, without its classifier.

    ``heads`` are the tensors of its classifier, ``sized`` those whose shapes follow the image
    size. ``normalisations`` are (mean, std): the library's default, then those of all the weights
    that it knows.
    """

    arch: str
    shapes: Shapes
    heads: frozenset[str]
    sized: frozenset[str]
    image_size: int
    normalisations: tuple[Normalisation, ...]
    family: int = 0
    function: int = 0


@dataclass(frozen=True)
class Hit:
    """A tower whose tensors are all under ``prefix`` in a file.

    ``image_size`` is that of the file's position embeddings, the tower's own where it has none.
    """

    prefix: str
    entry: Entry
    image_size: int

    @property
    def resized(self) -> bool:
        """Tell whether the file was made for another image size than the tower's default."""
        return self.image_size != self.entry.image_size

    @property
    def arch(self) -> str:
        """What to pass as ``--arch``."""
        if not self.resized:
            return self.entry.arch
        option = SIZE_OPTIONS[self.entry.arch.partition(":")[0]]
        return f"{self.entry.arch},{option}={self.image_size}"


class Index:
    """All known towers, in arrays that are searched at once."""

    def __init__(self, archive: Mapping[str, Any]) -> None:
        self.about = json.loads(bytes(archive["about"]))
        if self.about["schema"] != SCHEMA:
            raise ValueError(f"index of schema {self.about['schema']}, not {SCHEMA}")
        self.versions: dict[str, str] = self.about["versions"]
        self.names: list[str] = bytes(archive["names"]).decode().split("\n")
        self.shapes = [_shape(text) for text in bytes(archive["shapes"]).decode().split("\n")]
        self.pair_names: NDArray[np.int64] = archive["pair_names"].astype(np.int64)
        self.pair_shapes: NDArray[np.int64] = archive["pair_shapes"].astype(np.int64)
        self.pairs: NDArray[np.int64] = np.cumsum(archive["steps"].astype(np.int64))
        self.lengths: NDArray[np.int64] = archive["lengths"].astype(np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)[:-1]])
        self.name_ids = {name: number for number, name in enumerate(self.names)}

    @classmethod
    def read(cls, path: Path) -> Index:
        """Read an index that :func:`save` wrote."""
        with lzma.open(path) as file:
            return cls(np.load(io.BytesIO(file.read()), allow_pickle=False))

    def __len__(self) -> int:
        """Return the number of towers."""
        return len(self.lengths)

    def entry(self, number: int) -> Entry:
        """Return one tower, counted from 0."""
        about = self.about["entries"][number]
        start = self.starts[number]
        shapes = {
            self.names[self.pair_names[pair]]: self.shapes[self.pair_shapes[pair]]
            for pair in self.pairs[start : start + self.lengths[number]]
        }
        return Entry(
            arch=about["arch"],
            shapes=shapes,
            heads=frozenset(about["heads"]),
            sized=frozenset(shapes) & frozenset(self.about["sized"][about["sized"]]),
            image_size=about["image_size"],
            normalisations=tuple(
                (tuple(mean), tuple(std))
                for mean, std in (
                    self.about["normalisations"][chosen] for chosen in about["normalisations"]
                )
            ),
            family=about["family"],
            function=about["function"],
        )

    def entries(self) -> Iterator[Entry]:
        """Yield every tower."""
        return map(self.entry, range(len(self)))

    def find(self, shapes: Mapping[str, Shape]) -> list[Hit]:
        """Return every tower whose tensors a file holds, under whatever prefix."""
        hits = []
        for prefix in self._prefixes(shapes):
            for number in self._named_under(prefix, shapes):
                entry = self.entry(number)
                size = fitting_size(entry, prefix, shapes)
                if size is not None:
                    hits.append(Hit(prefix, entry, size))
        return hits

    def nearest(self, shapes: Mapping[str, Shape], count: int = 3) -> list[tuple[str, float]]:
        """Return the towers that share the most tensors with a file, and the shares in [0, 1].

        A share is of the tower's tensors and of the file's, whichever are more, so that a small
        tower is no answer; tensors of another shape count as half.
        """
        best: dict[str, float] = {}
        for prefix in self._prefixes(shapes):
            named = self._hits(prefix, shapes) / np.maximum(self.lengths, len(shapes))
            for number in np.argsort(-named, kind="stable")[:MOST_COMPARED].tolist():
                entry = self.entry(number)
                same = sum(shapes.get(prefix + n) == shape for n, shape in entry.shapes.items())
                share = (named[number] + same / max(len(entry.shapes), len(shapes))) / 2
                best[entry.arch] = max(best.get(entry.arch, 0.0), float(share))
        return sorted(best.items(), key=lambda item: -item[1])[:count]

    def _prefixes(self, names: Iterable[str]) -> list[str]:
        """Return the prefixes under which the most known names occur."""
        hits: Counter[str] = Counter()
        for name in names:
            prefix, rest = "", name
            for _ in range(MAX_PREFIX_PARTS):
                if rest in self.name_ids:
                    hits[prefix] += 1
                part, dot, rest = rest.partition(".")
                if not dot:
                    break
                prefix += part + dot
        return [prefix for prefix, n in hits.most_common(MAX_ENCODERS) if n >= LEAST_HITS]

    def _hits(self, prefix: str, names: Iterable[str]) -> NDArray[np.int64]:
        """Count for each tower those of its names that are there under a prefix."""
        present = np.zeros(len(self.names), dtype=np.int64)
        for name in names:
            if name.startswith(prefix):
                number = self.name_ids.get(name[len(prefix) :])
                if number is not None:
                    present[number] = 1
        counts: NDArray[np.int64] = np.add.reduceat(
            present[self.pair_names[self.pairs]], self.starts
        )
        return counts

    def _named_under(self, prefix: str, names: Iterable[str]) -> list[int]:
        """Return the towers all of whose names are there under a prefix."""
        found: list[int] = np.flatnonzero(self._hits(prefix, names) == self.lengths).tolist()
        return found


def fitting_size(entry: Entry, prefix: str, shapes: Mapping[str, Shape]) -> int | None:
    """Return the image size at which a tower has the shapes under a prefix, None if at none.

    Where shapes that follow the image size differ, the size is read off the first that does; the
    module built for it will show whether the others agree.
    """
    size = entry.image_size
    for name, expected in entry.shapes.items():
        found = shapes[prefix + name]
        if found == expected:
            continue
        if name not in entry.sized or len(found) != len(expected):
            return None
        if size == entry.image_size:
            read = _size_from(entry.image_size, expected, found)
            if read is None:
                return None
            size = read
    return size


def _size_from(size: int, expected: Shape, found: Shape) -> int | None:
    """Read an image size off a position embedding or table of another shape."""
    changed = [(old, new) for old, new in zip(expected, found, strict=True) if old != new]
    if len(changed) == 2 and len(set(changed)) == 1:
        # A grid (..., H, W).
        old, new = changed[0]
        # Patches that overlap, as PiT's do, are one fewer a side.
        return _scaled(size, old, new) or _scaled(size, old + 1, new + 1)
    if len(changed) != 1:
        return None
    old, new = changed[0]
    for extra in range(MOST_EXTRA_TOKENS + 1):
        old_side, new_side = _root(old - extra), _root(new - extra)
        if not old_side or not new_side:
            continue
        scaled = _scaled(size, old_side, new_side)
        if scaled is not None and size % old_side == 0:
            return scaled
        # Of relative positions there are 2 * side - 1 a side.
        if old_side % 2 and new_side % 2:
            return _scaled(size, (old_side + 1) // 2, (new_side + 1) // 2)
    if old % 2 and new % 2:
        # The same for each axis apart, as MViTv2 has them.
        return _scaled(size, (old + 1) // 2, (new + 1) // 2)
    return None


def _scaled(size: int, old: int, new: int) -> int | None:
    return size * new // old if old and size * new % old == 0 else None


def _root(number: int) -> int | None:
    """Return the whole square root, None where there is none."""
    if number <= 0:
        return None
    root = math.isqrt(number)
    return root if root * root == number else None


@cache
def load() -> Index:
    """Return the index that the package ships; it takes a tenth of a second, once."""
    return Index.read(PATH)


def save(entries: Sequence[Entry], versions: Mapping[str, str], path: Path) -> None:
    """Write an index."""
    names = sorted({name for entry in entries for name in entry.shapes}, key=_natural)
    shapes = sorted({shape for entry in entries for shape in entry.shapes.values()})
    name_ids = {name: number for number, name in enumerate(names)}
    shape_ids = {shape: number for number, shape in enumerate(shapes)}
    pair_ids: dict[tuple[int, int], int] = {}
    bodies = [
        [
            pair_ids.setdefault((name_ids[name], shape_ids[shape]), len(pair_ids))
            for name, shape in entry.shapes.items()
        ]
        for entry in entries
    ]
    sized = _numbered(tuple(sorted(entry.sized)) for entry in entries)
    norms = _numbered(norm for entry in entries for norm in entry.normalisations)
    about = {
        "schema": SCHEMA,
        "versions": dict(versions),
        "sized": list(sized),
        "normalisations": list(norms),
        "entries": [
            {
                "arch": entry.arch,
                "heads": sorted(entry.heads),
                "sized": sized[tuple(sorted(entry.sized))],
                "image_size": entry.image_size,
                "normalisations": list(dict.fromkeys(norms[norm] for norm in entry.normalisations)),
                "family": entry.family,
                "function": entry.function,
            }
            for entry in entries
        ],
    }
    arrays = {
        "about": _bytes(json.dumps(about, separators=(",", ":"))),
        "names": _bytes("\n".join(names)),
        "shapes": _bytes("\n".join("x".join(map(str, shape)) for shape in shapes)),
        "pair_names": np.array([name for name, _ in pair_ids], dtype=np.int32),
        "pair_shapes": np.array([shape for _, shape in pair_ids], dtype=np.int32),
        # Neighbours in a tower are mostly neighbours in the list, so steps compress well.
        "steps": np.diff(np.array([p for body in bodies for p in body]), prepend=0).astype(
            np.int32
        ),
        "lengths": np.array([len(body) for body in bodies], dtype=np.int32),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    atomic_write_bytes(path, lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def _numbered(values: Iterable[Any]) -> dict[Any, int]:
    return {value: number for number, value in enumerate(dict.fromkeys(values))}


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Sort numbers in names as numbers: "blocks.2" comes before "blocks.10"."""
    parts = name.replace("_", ".").split(".")
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _shape(text: str) -> Shape:
    return tuple(int(side) for side in text.split("x")) if text else ()
