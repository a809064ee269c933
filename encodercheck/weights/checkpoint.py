"""The tensors of one model, in one .safetensors file or in the shards of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encodercheck.errors import LoadError
from encodercheck.weights.header import Header, TensorInfo, located, os_reason, quoted, read_header

Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Checkpoint:
    """What the files of a model hold, without their data.

    ``path`` is what messages name: the file, or the index of the shards. ``aliases`` lead from
    names that a writer left out, because they share another tensor's memory, to that other name.
    ``stamps`` tell whether a shard has changed since. ``originals`` lead
    from names that were translated to those in the file.
    """

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    shards: tuple[Header, ...]
    stamps: tuple[Stamp, ...]
    aliases: dict[str, str] = field(default_factory=dict)
    originals: dict[str, str] = field(default_factory=dict)

    def name_in_file(self, name: str) -> str:
        """Return what a tensor is called in its file."""
        return self.originals.get(name, name)


def open_checkpoint(path: Path, shards: Sequence[Path] = ()) -> Checkpoint:
    """Read and validate the header of ``path``, or those of the ``shards`` that it is the index of.

    Raises:
        LoadError: a file cannot be read, breaks a rule of the format, or repeats another's tensor.
    """
    files = tuple(shards) or (path,)
    stamps = tuple(stamp(file) for file in files)
    headers = tuple(read_header(file) for file in files)
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    for header in headers:
        for name in header.tensors.keys() & tensors.keys():
            raise LoadError(
                f"{located(header.path)}: tensor '{quoted(name)}' is in another shard as well; "
                "download the shards again"
            )
        tensors |= header.tensors
        metadata |= header.metadata
    return Checkpoint(path, tensors, metadata, headers, stamps, _aliases(tensors, metadata))


def declared_shards(index: Path, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the ``weight_map`` of an index: tensor names to file names in the same folder.

    Raises:
        LoadError: it is none, or a file name leads out of the folder.
    """
    mapping = values.get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise LoadError(f"{located(index)}: has no weight_map; download the folder again")
    for file in set(map(str, mapping.values())):
        if not _is_plain(file):
            raise LoadError(
                f"{located(index)}: names the shard '{quoted(file)}', which is no .safetensors "
                "file of its own folder; do not trust this folder"
            )
    return {str(name): str(file) for name, file in mapping.items()}


def check_shards(checkpoint: Checkpoint, mapping: dict[str, str]) -> None:
    """See that the shards hold what their index says.

    Raises:
        LoadError: they do not.
    """
    for header in checkpoint.shards:
        said = {name for name, file in mapping.items() if file == header.path.name}
        for names, fault in (
            (said - header.tensors.keys(), "lacks"),
            (header.tensors.keys() - said, "holds, against the index,"),
        ):
            if names:
                raise LoadError(
                    f"{located(header.path)}: {fault} tensor '{quoted(min(names))}' of "
                    f"{located(checkpoint.path.name)}; download the folder again"
                )


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


def _is_plain(file: str) -> bool:
    """Tell whether a name can only mean a .safetensors file in the folder itself."""
    return (
        file.endswith(".safetensors")
        and len(file) <= 255
        and file.isprintable()
        and not any(mark in file for mark in "/\\:")
    )


def _aliases(tensors: Iterable[str], metadata: dict[str, str]) -> dict[str, str]:
    """Return the names that ``safetensors.torch.save_model`` left out, with those it kept."""
    held = set(tensors)
    return {name: kept for name, kept in metadata.items() if kept in held and name not in held}
