"""From what the user typed to the files of one model on disk."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from encodercheck.errors import LoadError
from encodercheck.weights import folder as folders
from encodercheck.weights import hub
from encodercheck.weights.checkpoint import Checkpoint, declared_shards, open_checkpoint
from encodercheck.weights.header import listed, located, os_reason, quoted

SUFFIX = folders.SUFFIX
PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar"})
CONVERT = (
    'python -c "import torch; from safetensors.torch import save_file; '
    "d = torch.load('model.pt', map_location='cpu', weights_only=True); "
    "save_file(d.get('state_dict', d), 'model.safetensors')\""
)
# Protocols 2 to 5; the older ones have no mark of their own.
PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model.

    ``path`` is the .safetensors file, or the index of the ``shards``; ``configs`` may say what the
    model is, the likeliest first; ``notes`` tell where the files are from.
    """

    path: Path
    shards: tuple[Path, ...] = ()
    weight_map: dict[str, str] = field(default_factory=dict)
    configs: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def open(self) -> Checkpoint:
        """Read and validate the headers.

        Raises:
            LoadError: a file cannot be read, or breaks a rule of the format.
        """
        return open_checkpoint(self.path, self.shards, self.weight_map)


def locate(model: str | Path) -> ModelFiles:
    """Return the files that ``model`` names.

    ``model`` is a .safetensors file, the index of a sharded one, a folder that holds either, or
    ``hf://org/name[@rev]``: only that is ever asked of the network.

    Raises:
        LoadError: there is no such file, more than one, or a pickle.
        ConfigError: the library that a hub needs is not installed.
    """
    if hub.is_hub(str(model)):
        snapshot = hub.fetch(str(model), _wanted)
        found = _local(snapshot.folder)
        return ModelFiles(
            found.path,
            found.shards,
            found.weight_map,
            found.configs,
            (f"from the hub, commit {snapshot.commit}", *found.notes),
        )
    return _local(Path(model))


def _local(path: Path) -> ModelFiles:
    notes: tuple[str, ...] = ()
    try:
        if path.is_dir():
            notes = _not_scanned(path)
            path = _in_folder(path)
        if not path.exists():
            raise LoadError(f"{located(path)}: no such file or folder; check the path")
        if not path.is_file():
            raise LoadError(f"{located(path)}: not a regular file; pass a .safetensors file")
        configs = folders.configs_beside(path)
        if path.name.lower().endswith(folders.INDEX_SUFFIX):
            weight_map = _weight_map(path)
            return ModelFiles(path, _shards(path, weight_map), weight_map, configs, notes)
        _refuse_other_formats(path)
    except (OSError, ValueError) as error:
        raise LoadError(f"{located(path)}: cannot be read: {os_reason(error)}") from error
    return ModelFiles(path, configs=configs, notes=notes)


def _wanted(names: Sequence[str]) -> list[str]:
    """Return the files of a hub's repository to download.

    The shards of an index are not known before it is here, so all files like them are wanted.
    """
    top = [name for name in names if "/" not in name]
    choice = _chosen("the repository", top)
    if choice is None:
        pickles = [name for name in top if Path(name).suffix.lower() in PICKLE_SUFFIXES]
        what = f"only pickles ({pickles[0]})" if pickles else "no .safetensors file"
        raise LoadError(
            f"the repository holds {what}; encodercheck reads .safetensors only: pass another "
            "revision or a converted file"
        )
    if choice.others:
        raise LoadError(
            f"the repository holds several weights ({listed([choice.weights, *choice.others])}); "
            "download it with `hf download`, and scan the file that you load"
        )
    stem = choice.weights[: -len(folders.INDEX_SUFFIX)]
    shards = [name for name in top if name.startswith(f"{stem}-") and name.lower().endswith(SUFFIX)]
    return [choice.weights, *choice.configs, *(shards if choice.sharded else ())]


def _in_folder(folder: Path) -> Path:
    names = folders.files_in(folder)
    choice = _chosen(folder, names)
    if choice is not None:
        folders.check_inside(folder / choice.weights, folder)
        path = folder / choice.weights
        shards = set(_weight_map(path).values()) if choice.sharded and choice.others else set()
        for name in choice.others:
            if name not in shards:
                _refuse_another(folder, choice, name)
        return path
    pickles = [name for name in names if Path(name).suffix.lower() in PICKLE_SUFFIXES]
    if pickles:
        _refuse_pickle(folder / pickles[0])
    raise LoadError(f"{located(folder)}: no .safetensors file in this folder; pass one")


def _refuse_another(folder: Path, choice: folders.Choice, other: str) -> None:
    """Refuse a folder with other weights, which libraries load that look for another name.

    A verdict on one of them would be taken for one on the folder. Copies are no others.
    """
    one, two = folder / choice.weights, folder / other
    folders.check_inside(two, folder)
    if two.is_file() and (choice.sharded or not filecmp.cmp(one, two, shallow=False)):
        raise LoadError(
            f"{located(folder)}: holds weights that differ, {quoted(choice.weights)} and "
            f"{quoted(other)}; scan the file that you load, or both"
        )


def _not_scanned(folder: Path) -> tuple[str, ...]:
    """Return a note on weights in subfolders."""
    others = folders.below(folder)
    return (f"not scanned: {listed(others)}, in subfolders",) if others else ()


def _chosen(folder: Path | str, names: Sequence[str]) -> folders.Choice | None:
    try:
        return folders.choose(names)
    except folders.SeveralError as error:
        raise LoadError(f"{located(folder)}: {error}") from error


def _weight_map(index: Path) -> dict[str, str]:
    return declared_shards(index, folders.read_json(index, folders.MAX_INDEX))


def _shards(index: Path, weight_map: dict[str, str]) -> tuple[Path, ...]:
    paths = tuple(index.parent / name for name in sorted(set(weight_map.values())))
    for path in paths:
        if not os.path.lexists(path):
            raise LoadError(f"{located(path)}: this shard is missing; download the folder again")
        folders.check_inside(path, index.parent)
        if not path.is_file():
            raise LoadError(f"{located(path)}: not a regular file; download the folder again")
        _refuse_other_formats(path)
    return paths


def _refuse_other_formats(path: Path) -> None:
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(40)
    if suffix in PICKLE_SUFFIXES or _is_pickle(start):
        _refuse_pickle(path)
    if start.startswith(b"version https://git-lfs"):
        raise LoadError(
            f"{located(path)}: a Git LFS pointer, not the weights; fetch them with `git lfs pull`"
        )
    if suffix != SUFFIX:
        raise LoadError(f"{located(path)}: not a .safetensors file; save the weights as one")


def _is_pickle(start: bytes) -> bool:
    """Recognise torch's zip files and bare pickles by their first bytes."""
    # A header's length may begin with the same bytes, but then its JSON follows.
    if start[8:9] == b"{":
        return False
    return start.startswith((b"PK\x03\x04", *PICKLE_STARTS))


def _refuse_pickle(path: Path) -> NoReturn:
    raise LoadError(
        f"{located(path)}: a pickle, which can run code when it is loaded, so encodercheck reads "
        f".safetensors only; convert it where you trust it: {CONVERT}"
    )
