"""The data of a checkpoint: read once from front to end, hashed on the way.

Files are read, not mapped: a mapped file that somebody truncates takes the process with it, and its
pages count as memory beside the copies made from them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from io import FileIO

import torch
from torch import Tensor

from encodercheck.errors import LoadError
from encodercheck.weights.checkpoint import Checkpoint, Stamp
from encodercheck.weights.header import Header, TensorInfo, located, os_reason

CHUNK = 2**20

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The dtypes that a module's tensors can be made from."""


def read_tensors(checkpoint: Checkpoint, take: Callable[[str, Tensor | None], bool]) -> str:
    """Read every file of a checkpoint once, and return the SHA-256 of what was read.

    ``take(name, None)`` says whether a tensor is wanted, and ``take(name, tensor)`` gets it, in the
    file's own dtype and with memory of its own. The hash of several shards is that of
    the lines ``sha256sum`` prints for them.

    Raises:
        LoadError: a file cannot be read, or has changed since its header was.
    """
    digests = []
    for header, stamp in zip(checkpoint.shards, checkpoint.stamps, strict=True):
        try:
            with header.path.open("rb", buffering=0) as file:
                _check_unchanged(header, stamp, file)
                digests.append(_read_file(file, header, take))
                _check_unchanged(header, stamp, file)
        except OSError as error:
            raise LoadError(
                f"{located(header.path)}: the weights cannot be read: {os_reason(error)}"
            ) from error
    if len(digests) == 1:
        return digests[0]
    lines = (
        f"{digest}  {header.path.name}\n"
        for digest, header in zip(digests, checkpoint.shards, strict=True)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _read_file(file: FileIO, header: Header, take: Callable[[str, Tensor | None], bool]) -> str:
    """Read one file from front to end; the tensors cover it, so nothing is left out of the hash."""
    digest = hashlib.sha256()
    for chunk in _chunks(file, header, header.data_start):
        digest.update(chunk)
    for name, info in sorted(header.tensors.items(), key=lambda item: item[1].offsets):
        size = info.offsets[1] - info.offsets[0]
        if not take(name, None):
            for chunk in _chunks(file, header, size):
                digest.update(chunk)
            continue
        data = torch.empty(size, dtype=torch.uint8)
        view = memoryview(data.numpy())  # type: ignore[arg-type]
        _fill(file, header, view)
        digest.update(view)
        take(name, _typed(data, info))
    return digest.hexdigest()


def _typed(data: Tensor, info: TensorInfo) -> Tensor:
    return data.view(DTYPES[info.dtype]).view(info.shape)


def _chunks(file: FileIO, header: Header, size: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(size, CHUNK)))
    while size:
        part = buffer[: min(size, CHUNK)]
        _fill(file, header, part)
        yield part
        size -= len(part)


def _fill(file: FileIO, header: Header, buffer: memoryview) -> None:
    """Fill the buffer: a read may return less than was asked for."""
    while buffer:
        count = file.readinto(buffer)
        if not count:
            raise _changed(header)
        buffer = buffer[count:]


def _check_unchanged(header: Header, stamp: Stamp, file: FileIO) -> None:
    status = os.fstat(file.fileno())
    if (status.st_ino, status.st_size, status.st_mtime_ns) != stamp:
        raise _changed(header)


def _changed(header: Header) -> LoadError:
    return LoadError(f"{located(header.path)}: changed while it was read; try again")
