"""The tensors of one model, in one .safetensors file or in the shards of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from encodercheck.errors import ConfigError, LoadError
from encodercheck.weights.header import (
    MAX_TENSORS,
    SAVE_LESS,
    Header,
    TensorInfo,
    listed,
    located,
    os_reason,
    quoted,
    read_header,
)

Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Checkpoint:
    """What the files of a model hold, without their data.

    ``path`` is what messages name: the file, or the index of the shards. ``aliases`` lead from
    names that a writer left out, because they share another tensor's memory, to that other name.
    ``stamps`` tell whether a shard has changed since. ``originals`` lead
    from names that were translated to those in the file. ``tower`` is the prefix of the encoder
    that was asked for, None where none was.
    """

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    shards: tuple[Header, ...]
    stamps: tuple[Stamp, ...]
    aliases: dict[str, str] = field(default_factory=dict)
    originals: dict[str, str] = field(default_factory=dict)
    tower: str | None = None

    def under(self, tower: str) -> Checkpoint:
        """Return the checkpoint with no tensors but those whose names begin so.

        ``.`` stands for the encoder whose names have no prefix.

        Raises:
            ConfigError: there are none.
        """
        prefix = tower.rstrip(".") + "." if tower.strip(".") else ""
        tensors = {name: info for name, info in self.tensors.items() if name.startswith(prefix)}
        if not tensors:
            known = sorted({name.partition(".")[0] + "." for name in self.tensors if "." in name})
            raise ConfigError(
                f"--tower {quoted(tower)}: no tensor of {located(self.path)} begins so; they "
                f"begin with {listed(known) or 'no prefix'}"
            )
        return replace(self, tensors=tensors, tower=prefix)

    def name_in_file(self, name: str) -> str:
        """Return what a tensor is called in its file."""
        return self.originals.get(name, name)


def open_checkpoint(
    path: Path, shards: Sequence[Path] = (), weight_map: Mapping[str, str] = MappingProxyType({})
) -> Checkpoint:
    """Read and validate the header of ``path``, or those of the ``shards`` that it is the index of.

    ``weight_map`` is what the index says; shards must hold exactly that.

    Raises:
        LoadError: a file cannot be read, breaks a rule of the format, or is not as its index says.
    """
    files = tuple(shards) or (path,)
    stamps = tuple(stamp(file) for file in files)
    wanted: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        wanted.setdefault(shard, set()).add(name)
    headers = []
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    for file in files:
        header = read_header(file)
        if shards:
            _check_shard(header, wanted.get(file.name, set()), path)
        headers.append(header)
        tensors |= header.tensors
        metadata |= header.metadata
    return Checkpoint(path, tensors, metadata, tuple(headers), stamps, _aliases(tensors, metadata))


def declared_shards(index: Path, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the ``weight_map`` of an index: tensor names to file names in the same folder.

    Raises:
        LoadError: it is none, or a file name leads out of the folder.
    """
    mapping = values.get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise LoadError(f"{located(index)}: has no weight_map; download the folder again")
    if len(mapping) > MAX_TENSORS:
        raise LoadError(f"{located(index)}: describes more than {MAX_TENSORS} tensors; {SAVE_LESS}")
    for file in mapping.values():
        if not _is_plain(file):
            raise LoadError(
                f"{located(index)}: names the shard '{quoted(file)}', which is no .safetensors "
                "file of its own folder; do not trust this folder"
            )
    return mapping


def stamp(path: Path) -> Stamp:
    """Return what changes when a file is replaced or written to.

    Raises:
        LoadError: the file cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise LoadError(f"{located(path)}: cannot be read: {os_reason(error)}") from error
    return status.st_ino, status.st_size, status.st_mtime_ns


def _check_shard(header: Header, wanted: Set[str], index: Path) -> None:
    """See that a shard holds the tensors that its index says, and no others.

    Raises:
        LoadError: it does not.
    """
    held = header.tensors.keys()
    for names, fault in ((wanted - held, "lacks"), (held - wanted, "holds, against the index,")):
        if names:
            raise LoadError(
                f"{located(header.path)}: {fault} tensor '{quoted(min(names))}' of "
                f"{located(index.name)}; download the folder again"
            )


def _is_plain(file: Any) -> bool:
    """Tell whether a name can only mean a .safetensors file in the folder itself."""
    return (
        isinstance(file, str)
        and file.lower().endswith(".safetensors")
        and len(file) <= 255
        and file.isprintable()
        and not any(mark in file for mark in "/\\:")
    )


def _aliases(tensors: Iterable[str], metadata: dict[str, str]) -> dict[str, str]:
    """Return the names that ``safetensors.torch.save_model`` left out, with those it kept."""
    held = set(tensors)
    return {name: kept for name, kept in metadata.items() if kept in held and name not in held}
