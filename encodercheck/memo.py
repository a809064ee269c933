"""Embeddings kept on disk, so that a black box is asked for no image twice."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from encodercheck.cache import make_folder
from encodercheck.errors import OutputError

T = TypeVar("T")

# Marks our files, where sqlite has a place for it in the header.
APPLICATION = int.from_bytes(b"ecme", "big")
# Seconds to wait while another process writes.
PATIENCE = 60.0
TABLE = "CREATE TABLE embeddings (key BLOB PRIMARY KEY, value BLOB NOT NULL)"


class Memo:
    """Remembers embeddings in a sqlite file that several processes may share.

    ``embed`` gets images (N, 3, H, W) that are distinct and not remembered yet, and returns
    (N, D) float32 embeddings on the CPU. What it returned is on disk before the call ends. A file
    that is damaged, or another program's, is replaced.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, embed: Callable[[Tensor], Tensor]) -> None:
        self.path = path
        self._embed = embed
        make_folder(path.parent)
        self._do(_nothing)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the embeddings (N, D), float32 on the CPU, of images (N, 3, H, W) in [0, 1].

        N is at least 1. What is missing goes to ``embed`` in one call, whatever its size: batches
        are the caller's.

        Raises:
            OutputError: the file cannot be written.
        """
        images = images.detach().to("cpu", torch.float32)
        keys = _keys(images)
        known = self._do(lambda database: _read(database, keys))
        missing: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key not in known:
                missing.setdefault(key, place)
        if missing:
            fresh = dict(zip(missing, self._embed(images[list(missing.values())]), strict=True))
            self._do(lambda database: _write(database, fresh))
            known.update(fresh)
        return torch.stack([known[key] for key in keys])

    def keep(self, images: Tensor, embeddings: Tensor) -> None:
        """Remember embeddings (N, D) that are known already, of images (N, 3, H, W) in [0, 1].

        Raises:
            OutputError: the file cannot be written.
        """
        fresh = dict(zip(_keys(images), embeddings.to("cpu", torch.float32), strict=True))
        self._do(lambda database: _write(database, fresh))

    def __deepcopy__(self, memo: dict[int, Any]) -> Memo:
        """Return itself: what copies of an encoder learn is for all of them."""
        return self

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work``, and a second time, on a new file, where the one found is no good."""
        try:
            try:
                return self._connected(work)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
            self._remove()
            return self._connected(work)
        except (sqlite3.Error, OSError) as error:
            raise OutputError(
                f"{self.path}: cannot keep embeddings ({error}); set ENCODERCHECK_CACHE to "
                "another folder"
            ) from error

    def _connected(self, work: Callable[[sqlite3.Connection], T]) -> T:
        # A connection must not cross threads and forks: one for each call does not.
        connected = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
        with closing(connected) as database:
            _prepare(database)
            return work(database)

    def _remove(self) -> None:
        for path in (self.path, self.path.with_name(f"{self.path.name}-journal")):
            path.unlink(missing_ok=True)


def _prepare(database: sqlite3.Connection) -> None:
    """Create the table in a new file.

    Raises:
        sqlite3.DatabaseError: the file is damaged, or another program's.
    """
    if _is_ours(database):
        return
    database.execute("BEGIN IMMEDIATE")
    # Another process may have been faster.
    if not _is_ours(database):
        if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise sqlite3.DatabaseError("the file is another program's")
        database.execute(TABLE)
        database.execute(f"PRAGMA application_id = {APPLICATION}")
    database.execute("COMMIT")


def _is_ours(database: sqlite3.Connection) -> bool:
    found: int = database.execute("PRAGMA application_id").fetchone()[0]
    return found == APPLICATION


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Tell a file that is no good from one that is locked, read-only or on a full disk."""
    return not isinstance(error, sqlite3.OperationalError) or str(error).startswith("no such")


def _nothing(database: sqlite3.Connection) -> None:
    """Do nothing: to connect is to find out whether the file is usable."""


def _read(database: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
    """Return the embeddings (D,) that are remembered, by key."""
    known = {}
    for key in set(keys):
        row = database.execute("SELECT value FROM embeddings WHERE key = ?", (key,)).fetchone()
        if row is not None:
            known[key] = torch.from_numpy(np.frombuffer(row[0], np.float32).copy())
    return known


def _write(database: sqlite3.Connection, embeddings: Mapping[bytes, Tensor]) -> None:
    """Write embeddings (D,), by key, all or none of them."""
    rows = [(key, value.numpy().tobytes()) for key, value in embeddings.items()]
    database.execute("BEGIN IMMEDIATE")
    database.executemany("INSERT OR IGNORE INTO embeddings VALUES (?, ?)", rows)
    database.execute("COMMIT")


def _keys(images: Tensor) -> list[bytes]:
    """Return the SHA-256 of the float32 values of each of images (N, 3, H, W)."""
    arrays = images.detach().to("cpu", torch.float32).numpy()
    return [hashlib.sha256(array.tobytes()).digest() for array in arrays]
