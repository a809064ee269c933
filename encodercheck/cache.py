"""Where results and fixtures are kept, and how a file is written: whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs

from encodercheck.errors import OutputError

# What Windows has under these names, whatever comes after a dot, is no file.
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"]
)
_ENVIRONMENT = "ENCODERCHECK_CACHE"


def cache_dir() -> Path:
    """Return the cache folder: ``ENCODERCHECK_CACHE`` where set, else the user's cache.

    The folder need not exist yet.
    """
    chosen = os.environ.get(_ENVIRONMENT)
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("encodercheck", False))


def make_folder(path: Path) -> Path:
    """Create ``path`` and its parents where they are missing, and return it.

    Raises:
        OutputError: the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: {_reason(error)}; set {_ENVIRONMENT} or free it") from error
    return path


def for_any_system(name: str) -> str:
    """Return a file's name such that every system takes it, and not for a device.

    >>> for_any_system("model"), for_any_system("CON"), for_any_system("nul.v2")
    ('model', '_CON', '_nul.v2')
    """
    return f"_{name}" if name.split(".")[0].rstrip().lower() in _DEVICES else name


def content_hash(value: Any) -> str:
    """Return the SHA-256, in hexadecimal, of bytes, or of a value as canonical JSON."""
    if not isinstance(value, bytes):
        value = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(value).hexdigest()


def atomic_write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text; see :func:`atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode())


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file so that readers see the old content or the new, and never a part.

    The folder must exist.

    Raises:
        OutputError: the file cannot be written; what was there before is untouched.
    """
    with atomic_writer(path) as file:
        file.write(data)


@contextmanager
def atomic_writer(path: Path | str) -> Iterator[BinaryIO]:
    """Yield a file to write to, which takes its place at the end of the block, and only there.

    For what is too large for :func:`atomic_write_bytes`. The folder must exist.

    Raises:
        OutputError: the file cannot be written; what was there before is untouched.
    """
    path = Path(path)
    try:
        with _replacing(path) as file:
            yield file
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({_reason(error)}); choose another place"
        ) from error


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    # In the same folder: a rename is atomic only within one file system.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_mode(path))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _mode(path: Path) -> int:
    """Return the permissions of the file at ``path``, or those that a new file would get."""
    if path.exists():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
