"""Model folders, as they are laid out on model hubs: which file holds the weights, which says what
they are.

Nothing outside the folder is read, wherever its files point: a symbolic link may lead only to
another place in the folder, or to where the hub's own cache keeps that file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encodercheck.errors import LoadError
from encodercheck.weights.header import (
    MAX_PARSING,
    check_structure,
    listed,
    located,
    os_reason,
    quoted,
    strict_json,
)

SUFFIX = ".safetensors"
INDEX_SUFFIX = f"{SUFFIX}.index.json"
PREFERRED = (
    f"model{SUFFIX}",
    f"model{INDEX_SUFFIX}",
    f"open_clip_model{SUFFIX}",
    f"open_clip_pytorch_model{SUFFIX}",
    f"pytorch_model{SUFFIX}",
)
CONFIG = "config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"
PROCESSOR = "preprocessor_config.json"
# Those of models of 22,000 classes, whose names they list twice, are of 1.7 MB.
MAX_CONFIG = 4 * 2**20
MAX_INDEX = 8 * 2**20
MAX_ENTRIES = 100_000
# So many weights in subfolders are enough to know that there are some.
MOST_BELOW = 1_000
SHARD = re.compile(r"-\d+-of-\d+\.safetensors$", re.IGNORECASE)
# The hub's cache: models--ORG--NAME/snapshots/COMMIT/FILE -> ../../blobs/HASH, and that may be a
# link once more, to a blob that all its repositories share.
REPOSITORY = re.compile(r"models--.+")
COMMIT = re.compile(r"[0-9a-f]{40}")
SHARED_BLOB = re.compile(r"[0-9a-f]{64}")
SHARED_MARK = ".huggingface-shared-blobs"


@dataclass(frozen=True)
class Choice:
    """Files of a folder by name: the weights or their index, and what may say what they are.

    ``others`` are further files of weights, which somebody may load instead.
    """

    weights: str
    configs: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def sharded(self) -> bool:
        """Tell whether ``weights`` is the index of several files."""
        return self.weights.lower().endswith(INDEX_SUFFIX)


class SeveralError(ValueError):
    """A folder holds several weights files, and none has a name that hubs use."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"{len(names)} .safetensors files ({listed(names)}); pass one of them")
        if all(map(SHARD.search, names)):
            super().__init__(
                f"shards ({listed(names)}) without their index; download the file whose name ends "
                f"in {INDEX_SUFFIX}, too"
            )


def files_in(folder: Path) -> list[str]:
    """Return the names of the files of a folder; hidden ones are no models.

    Raises:
        LoadError: there are too many to look through.
        OSError: it cannot be read.
    """
    names = []
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries):
            if count == MAX_ENTRIES:
                raise LoadError(
                    f"{located(folder)}: holds more than {MAX_ENTRIES} files; pass the "
                    ".safetensors file itself"
                )
            if not entry.name.startswith(".") and not _is_folder(entry):
                names.append(entry.name)
    return sorted(names)


def choose(names: Sequence[str]) -> Choice | None:
    """Return which files of a folder to read, None where it holds no weights.

    Raises:
        SeveralError: there are several, and none has a name that hubs use.
    """
    found = sorted(name for name in names if name.lower().endswith((SUFFIX, INDEX_SUFFIX)))
    for preferred in PREFERRED:
        for name in found:
            if name.lower() == preferred:
                return Choice(name, _configs(name, names), _others(name, found))
    # The shards of an index are no models of their own.
    indexes = [name for name in found if name.lower().endswith(INDEX_SUFFIX)]
    candidates = indexes or found
    if len(candidates) > 1:
        raise SeveralError(candidates)
    return Choice(candidates[0], _configs(candidates[0], names)) if candidates else None


def _others(chosen: str, found: Sequence[str]) -> tuple[str, ...]:
    """Return the weights among ``found`` beside those that were chosen, without shards."""
    return tuple(name for name in found if name != chosen and not SHARD.search(name))


def below(folder: Path) -> list[str]:
    """Return the weights in subfolders, as "unet/model.safetensors"; links are not followed.

    Raises:
        OSError: a folder cannot be read.
    """
    found: list[str] = []
    seen = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        own = Path(place).relative_to(folder)
        if own.parts:
            found += [str(own / name) for name in sorted(names) if name.lower().endswith(SUFFIX)]
        seen += len(folders) + len(names)
        if len(found) > MOST_BELOW or seen > MAX_ENTRIES:
            break
    return found


def configs_beside(weights: Path) -> tuple[Path, ...]:
    """Return the files beside a weights file that may say what it is, the likeliest first.

    They are not looked into: whether they are files of this folder is seen when they are read.
    """
    folder = weights.parent
    names = [
        name
        for name in (CONFIG, OPEN_CLIP_CONFIG, PROCESSOR)
        if os.path.lexists(folder / name) and not (folder / name).is_dir()
    ]
    return tuple(folder / name for name in _configs(weights.name, names))


def check_inside(path: Path, folder: Path) -> None:
    """See that a file of a folder is really in it.

    Raises:
        LoadError: it is a link to somewhere else, or to nothing.
    """
    try:
        target, home = path.resolve(strict=True), folder.resolve(strict=True)
        if target.is_relative_to(home) or _is_cached(home / path.name, target):
            return
    except (OSError, RuntimeError) as error:
        raise LoadError(
            f"{located(path)}: cannot be read: {os_reason(error)}; put the file there, or remove it"
        ) from error
    raise LoadError(
        f"{located(path)}: a symbolic link out of the model folder, which is not followed; put the "
        "file itself there"
    )


def read_json(path: Path, most: int = MAX_CONFIG) -> dict[str, Any]:
    """Return the JSON object in a small file.

    Raises:
        LoadError: the file is too large, cannot be read, or holds something else.
    """
    values = _decoded(path, read_small(path, most))
    if not isinstance(values, dict):
        raise LoadError(f"{located(path)}: not a JSON object; download it again, or remove it")
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
        raise LoadError(
            f"{located(path)}: cannot be read: {os_reason(error)}; allow reading it, or remove it"
        ) from error
    if len(raw) > most:
        raise LoadError(
            f"{located(path)}: {status.st_size} bytes are too many for its kind (at most {most}); "
            "download it again, or remove it"
        )
    return raw


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link in a circle, which matters only where it is read


def _configs(weights: str, names: Sequence[str]) -> tuple[str, ...]:
    order = [CONFIG, OPEN_CLIP_CONFIG, PROCESSOR]
    if weights.lower().startswith("open_clip"):
        order = [OPEN_CLIP_CONFIG, CONFIG, PROCESSOR]
    return tuple(name for name in order if name in names)


def _is_cached(link: Path, target: Path) -> bool:
    """Tell whether a file of the hub's cache is a link to where the cache keeps it."""
    snapshot = next((folder for folder in link.parents if COMMIT.fullmatch(folder.name)), None)
    if snapshot is None or snapshot.parent.name != "snapshots":
        return False
    repository = snapshot.parents[1]
    own, shared = repository / "blobs", repository.parent / "blobs"
    first = Path(os.path.normpath(link.parent / link.readlink()))
    if not REPOSITORY.fullmatch(repository.name) or first.parent != own:
        return False
    return target == first or (
        SHARED_BLOB.fullmatch(target.name) is not None
        and target == shared / target.name[:2] / target.name
        and (shared / SHARED_MARK).is_file()
    )


def _decoded(path: Path, raw: bytes) -> Any:
    try:
        check_structure(raw, MAX_PARSING)
        return strict_json(raw.decode("utf-8"))
    except ValueError as error:
        raise LoadError(
            f"{located(path)}: not valid JSON ({quoted(error)}); download it again, or remove it"
        ) from error
