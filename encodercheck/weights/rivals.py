"""Further image encoders in a file: what a scan of one of them says nothing about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from encodercheck.errors import AmbiguousArchitecture
from encodercheck.weights.checkpoint import Checkpoint
from encodercheck.weights.header import listed, located, quoted
from encodercheck.weights.spec import Shape

# What stands on the command line for tensors whose names have no prefix.
NO_PREFIX = "."


@dataclass(frozen=True)
class Rival:
    """Another encoder in the file.

    ``name`` is the prefix of its tensors, and ``own`` that of the encoder that was taken, as far as
    it takes to tell the two apart. ``twins`` lead from each tensor of the encoder that was taken to
    its counterpart, by their names in the file; None where there is none for one of them, so that
    the two differ whatever the weights.
    """

    name: str
    own: str
    twins: Mapping[str, str] | None


def find(checkpoint: Checkpoint, taken: Iterable[str], *, copies_only: bool) -> tuple[Rival, ...]:
    """Return the encoders beside the one that takes the tensors ``taken``, by name in the file.

    An encoder is known by its first convolution, over the three channels of an image.
    ``copies_only`` leaves out those that do not have all that the encoder has.
    """
    shapes = {checkpoint.name_in_file(name): t.shape for name, t in checkpoint.tensors.items()}
    own = {checkpoint.name_in_file(name) for name in taken}
    stems = [name for name, shape in shapes.items() if reads_images(shape)]
    mine = [name for name in stems if name in own]
    found: dict[str, Rival] = {}
    for stem in stems:
        if stem not in own and mine:
            rival = _rival(stem, max(mine, key=lambda name: _alike(name, stem)), own, shapes)
            if rival.twins is not None or not copies_only:
                found.setdefault(rival.name, rival)
    return tuple(found.values())


def reads_images(shape: Shape) -> bool:
    """Tell whether these are the weights of a convolution over three channels."""
    return len(shape) in (4, 5) and shape[1] == 3


def ambiguous(path: Path | str, names: Iterable[str]) -> AmbiguousArchitecture:
    """Return the error of a file with several encoders, of which none was chosen."""
    shown = [quoted(name or NO_PREFIX) for name in names]
    return AmbiguousArchitecture(
        f"{located(path)}: holds {len(shown)} encoders that differ ({listed(shown)}); say which "
        f"one is meant with {' or '.join(f'--tower {name}' for name in shown[:4])}"
    )


def _rival(stem: str, mine: str, own: Iterable[str], shapes: Mapping[str, Shape]) -> Rival:
    common = _alike(mine, stem)
    prefixes = [_cut(name, common) for name in (mine, stem)]
    twins = {
        name: prefixes[1] + name.removeprefix(prefixes[0])
        for name in own
        if name.startswith(prefixes[0])
    }
    whole = len(twins) == len(set(own)) and all(
        shapes.get(twin) == shapes[name] for name, twin in twins.items()
    )
    if whole and "" in prefixes:
        return Rival(prefixes[1], prefixes[0], twins)
    return Rival(*_told_apart(stem, mine), twins if whole else None)


def _told_apart(first: str, second: str) -> tuple[str, str]:
    """Return the beginnings of two names up to the part in which they differ."""
    parts = first.split("."), second.split(".")
    same = takewhile(lambda pair: pair[0] == pair[1], zip(*parts, strict=False))
    until = len(list(same)) + 1
    return tuple(f"{'.'.join(part[:until])}." for part in parts)  # type: ignore[return-value]


def _alike(first: str, second: str) -> int:
    """Return how many parts two names have in common at the end."""
    pairs = zip(reversed(first.split(".")), reversed(second.split(".")), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _cut(name: str, parts: int) -> str:
    """Return a name without so many parts at its end, with its last dot."""
    kept = name.split(".")[: -parts or None]
    return f"{'.'.join(kept)}." if kept else ""
