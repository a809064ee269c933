"""Model folders, as they are laid out on model hubs: which file holds the weights, which says what
they are.

Nothing outside the folder is read, wherever its files point: a symbolic link may lead only to
another place in the folder, or to the blobs of the hub's own cache.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encodercheck.errors import LoadError
from encodercheck.weights.header import listed, located, os_reason, quoted, strict_json

SUFFIX = ".safetensors"
INDEX_SUFFIX = f"{SUFFIX}.index.json"
PREFERRED = (
    f"model{SUFFIX}",
    f"model{INDEX_SUFFIX}",
    f"open_clip_model{SUFFIX}",
    f"pytorch_model{SUFFIX}",
)
CONFIG = "config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"
PROCESSOR = "preprocessor_config.json"
MAX_CONFIG = 2**20
MAX_INDEX = 8 * 2**20


@dataclass(frozen=True)
class Choice:
    """Files of a folder by name: the weights or their index, and what may say what they are."""

    weights: str
    configs: tuple[str, ...]

    @property
    def sharded(self) -> bool:
        """Tell whether ``weights`` is the index of several files."""
        return self.weights.lower().endswith(INDEX_SUFFIX)


class SeveralError(ValueError):
    """A folder holds several weights files, and none has a name that hubs use."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(listed(names))
        self.names = names


def choose(names: Sequence[str]) -> Choice | None:
    """Return which files of a folder to read, None where it holds no weights.

    Raises:
        SeveralError: there are several, and none has a name that hubs use.
    """
    found = sorted(name for name in names if name.lower().endswith((SUFFIX, INDEX_SUFFIX)))
    for name in PREFERRED:
        if name in found:
            return Choice(name, _configs(name, names))
    # The shards of an index are no models of their own.
    indexes = [name for name in found if name.lower().endswith(INDEX_SUFFIX)]
    candidates = indexes or found
    if len(candidates) > 1:
        raise SeveralError(candidates)
    return Choice(candidates[0], _configs(candidates[0], names)) if candidates else None


def configs_beside(weights: Path) -> tuple[Path, ...]:
    """Return the files beside a weights file that may say what it is, the likeliest first.

    Raises:
        LoadError: one is a link out of the folder.
    """
    folder = weights.parent
    names = [name for name in (CONFIG, OPEN_CLIP_CONFIG, PROCESSOR) if (folder / name).is_file()]
    paths = tuple(folder / name for name in _configs(weights.name, names))
    for path in paths:
        check_inside(path, folder)
    return paths


def check_inside(path: Path, folder: Path) -> None:
    """See that a file of a folder is really in it.

    Raises:
        LoadError: it is a link to somewhere else.
    """
    try:
        target, home = path.resolve(strict=True), folder.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise LoadError(f"{located(path)}: cannot be read: {os_reason(error)}") from error
    # The hub's cache: models--ORG--NAME/snapshots/COMMIT/FILE -> ../../blobs/HASH
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not (target.is_relative_to(home) or target.is_relative_to(blobs)):
        raise LoadError(
            f"{located(path)}: a symbolic link out of the model folder; pass the file itself, or a "
            "folder that holds its own files"
        )


def read_json(path: Path, most: int = MAX_CONFIG) -> dict[str, Any]:
    """Return the JSON object in a small file.

    Raises:
        LoadError: the file is too large, cannot be read, or holds something else.
    """
    values = _decoded(path, read_small(path, most))
    if not isinstance(values, dict):
        raise LoadError(f"{located(path)}: not a JSON object; download the folder again")
    return values


def read_small(path: Path, most: int) -> bytes:
    """Return the bytes of a file of at most ``most``.

    Raises:
        LoadError: the file is larger, or cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise LoadError(f"{located(path)}: not a regular file; remove it")
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        raise LoadError(f"{located(path)}: cannot be read: {os_reason(error)}") from error
    if len(raw) > most:
        raise LoadError(
            f"{located(path)}: {status.st_size} bytes are no configuration (at most {most}); "
            "remove it, or pass --arch"
        )
    return raw


def _configs(weights: str, names: Sequence[str]) -> tuple[str, ...]:
    order = [CONFIG, OPEN_CLIP_CONFIG, PROCESSOR]
    if weights.startswith("open_clip"):
        order = [OPEN_CLIP_CONFIG, CONFIG, PROCESSOR]
    return tuple(name for name in order if name in names)


def _decoded(path: Path, raw: bytes) -> Any:
    try:
        return strict_json(raw.decode("utf-8"))
    except ValueError as error:
        raise LoadError(
            f"{located(path)}: not valid JSON ({quoted(error)}); download it again, or pass --arch"
        ) from error
