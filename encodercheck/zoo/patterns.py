"""Patterns such as ``models/**/*.safetensors``: what they match, without following links."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from encodercheck.walking import Walk, below, require_shallow

MAGIC = frozenset("*?[")


def matching(pattern: str, walk: Walk) -> list[str]:
    """Return the paths that a pattern matches, as ``glob`` does but for links to folders.

    A link is followed where the pattern names it, and nowhere else. ``*.safetensors`` matches
    ``A.SAFETENSORS`` too.
    """
    start, parts = Path(pattern).anchor, Path(pattern).parts
    found = _matched(start, parts[bool(start) :], walk, 0)
    only_folders = pattern.endswith(("/", os.sep))
    return sorted({path for path in found if not only_folders or Path(path).is_dir()} - {""})


def _matched(base: str, parts: Sequence[str], walk: Walk, depth: int) -> Iterator[str]:
    require_shallow(base, depth)
    if not parts:
        yield base
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        while rest and rest[0] == "**":
            rest = rest[1:]
        yield from _matched(base, rest, walk, depth) if rest else [base]
        folders, files = walk.entries(base)
        for name in folders:
            yield from _matched(below(base, name), ["**", *rest], walk, depth + 1)
        if not rest:
            yield from (below(base, name) for name in files)
    elif not MAGIC & set(part):
        path = below(base, part)
        if os.path.lexists(path):
            yield from _matched(path, rest, walk, depth)
    else:
        folders, files = walk.entries(base)
        for name in folders if rest else sorted([*folders, *files]):
            if _fits(name, part):
                yield from _matched(below(base, name), rest, walk, depth)


def _fits(name: str, pattern: str) -> bool:
    stem, dot, ending = name.rpartition(".")
    return fnmatch(name, pattern) or fnmatch(stem + dot + ending.lower(), pattern)
