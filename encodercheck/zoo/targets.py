"""From what the user typed to the models it means: patterns, folders of models, lists, shards.

Nothing is opened: that something called a model is none is for its scan to say, in its own row.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from encodercheck.errors import ConfigError, LoadError
from encodercheck.walking import Walk, require_shallow
from encodercheck.weights import folder as folders
from encodercheck.weights.files import PICKLE_SUFFIXES
from encodercheck.weights.header import located, os_reason, quoted
from encodercheck.zoo.patterns import MAGIC, matching

SCHEMES = ("hf://", "fixture:")
WEIGHTS = (folders.SUFFIX, folders.INDEX_SUFFIX)
CONFIGS = frozenset({folders.CONFIG, folders.OPEN_CLIP_CONFIG})
STDIN = "-"


def walk() -> Walk:
    """Return a walk through folders of models."""
    return Walk(endings=WEIGHTS)


def expand(names: Iterable[str], walked: Walk | None = None) -> list[str]:
    """Return the models that ``names`` mean, each once, in the order of the names.

    A name is a model, a pattern such as ``models/**/*.safetensors``, or a folder of models. What
    is one model already, or nothing that is known here, stays as it is. ``walked`` is a
    :func:`walk`, to ask afterwards what was passed over: hidden files, and links to folders unless
    they are named.

    Raises:
        ConfigError: a pattern matches no model, or there is too much to look through.
    """
    walked = walked or walk()
    found: dict[str, str] = {}
    for name in names:
        for model in _meant(name, walked):
            place = model if model.startswith(SCHEMES) else os.path.normpath(model)
            found.setdefault(place, model)
    return list(found.values())


def read_list(path: str) -> list[str]:
    """Return the names in a file, one a line; lines that begin with ``#`` are comments.

    ``-`` is standard input. Relative paths are relative to the working directory.

    Raises:
        ConfigError: the file cannot be read, or names nothing.
    """
    try:
        raw = sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
        text = raw.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--from {located(path)}: cannot be read ({os_reason(error)}); name a text file with a "
            "model on each line"
        ) from error
    lines = (line.strip() for line in text.splitlines())
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise ConfigError(f"--from {located(path)}: names no model; write one on each line")
    return names


def parse_shard(text: str) -> tuple[int, int]:
    """Return ``(i, n)`` for "i/n", of which the first is 1/n.

    Raises:
        ConfigError: it is no such thing.
    """
    parts = text.split("/")
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit()]
    if len(parts) != 2 or len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1]:
        raise ConfigError(f"--shard {text!r}: write I/N, from 1/N to N/N")
    return numbers[0], numbers[1]


def shard(models: Iterable[str], i: int, n: int) -> list[str]:
    """Return the models of shard ``i`` of ``n``: each model is in one of them.

    A model's name alone decides, so that models which come or go move none of the others, and
    every shard finds its own earlier results again. Shards are of like size only when there are
    many models.
    """
    return [model for model in models if _number(model) % n == i - 1]


def _number(model: str) -> int:
    # As it is written: machines whose folders lie elsewhere must agree.
    return int.from_bytes(hashlib.sha256(os.fsencode(model)).digest()[:8], "big")


def _meant(name: str, walked: Walk) -> Iterator[str]:
    if name.startswith(SCHEMES):
        yield name
    elif os.path.isdir(name):  # noqa: PTH112 - a name may be too long for a path
        yield from _in_folder(Path(name), walked) or [name]
    elif MAGIC & set(name) and not os.path.lexists(name):
        yield from _matching(name, walked)
    else:
        yield name


def _matching(pattern: str, walked: Walk) -> list[str]:
    """Return the models that a pattern matches; files beside weights, as configs, are none.

    Raises:
        ConfigError: there are none.
    """
    parts = [Path(match) for match in matching(pattern, walked)]
    files = [path for path in parts if not path.is_dir()]
    weights = [path for path in files if path.name.lower().endswith(WEIGHTS)]
    models = [model for path in parts if path.is_dir() for model in _in_folder(path, walked)]
    # Of a folder that is matched as one model the files are no further ones.
    whole = set(models)
    models += [str(_unsharded(path)) for path in weights if str(path.parent) not in whole]
    if not models:
        # As *.pt: to each of them is said what is wrong with it.
        models = [str(path) for path in files]
    if not models:
        skipped = walked.skipped()
        passed_over = f" (passed over: {quoted(skipped, 300)})" if skipped else ""
        raise ConfigError(
            f"{located(pattern)}: no model matches this pattern{passed_over}; check it"
        )
    return sorted(set(models))


def _unsharded(path: Path) -> Path:
    """Return the index of the shard at ``path``, if it is one and that is beside it."""
    if folders.SHARD.search(path.name):
        index = path.with_name(folders.SHARD.sub(folders.INDEX_SUFFIX, path.name))
        return index if index.exists() else path
    return path


def _in_folder(folder: Path, walked: Walk, depth: int = 0) -> list[str]:
    """Return the models in a folder: itself where it is one, else those in it and below."""
    require_shallow(str(folder), depth)
    try:
        names = folders.files_in(folder)
    except (OSError, LoadError):
        # Its scan says what is the matter.
        return [str(folder)]
    if _is_model(names):
        return [str(folder)]
    weights = [folder / name for name in names if name.lower().endswith(WEIGHTS)]
    inner, _ = walked.entries(str(folder))
    below = [model for name in inner for model in _in_folder(folder / name, walked, depth + 1)]
    if len(weights) == 1 and not below:
        return [str(folder)]
    return sorted({*(str(_unsharded(path)) for path in weights), *below})


def _is_model(names: Sequence[str]) -> bool:
    """Tell whether the files of a folder are those of one model, though perhaps of a broken one."""
    weights = [name for name in names if name.lower().endswith(WEIGHTS)]
    if CONFIGS & set(names) or set(map(str.lower, weights)) & set(folders.PREFERRED):
        return True
    if weights:
        indexes = [name for name in weights if name.lower().endswith(folders.INDEX_SUFFIX)]
        shards = [name for name in weights if folders.SHARD.search(name)]
        return bool(shards) and len(indexes) <= 1 and len(indexes) + len(shards) == len(weights)
    return any(Path(name).suffix.lower() in PICKLE_SUFFIXES for name in names)
