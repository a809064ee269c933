"""What a screening of images has measured so far, on disk: it goes on where it was killed."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from encodercheck.cache import make_folder
from encodercheck.errors import OutputError

SCHEMA = """
CREATE TABLE IF NOT EXISTS images (
    file BLOB PRIMARY KEY, state TEXT NOT NULL, run TEXT NOT NULL, score REAL, embedding BLOB
);
CREATE INDEX IF NOT EXISTS by_score ON images (run, score DESC, file);
"""


@dataclass(frozen=True)
class Row:
    """An image file: its name within the folder, its state on disk, and its score.

    ``score`` is None where the file could not be read as an image; ``embedding`` (D,) is kept for
    those that are flagged.
    """

    file: str
    state: str
    score: float | None
    embedding: Tensor | None = None


class Ledger:
    """The rows of one screening, in an SQLite file; memory does not grow with their number.

    File names are kept as bytes: they need not be text.
    Rows belong to a ``run``, and are taken over from an earlier one where a file has not changed.

    Raises:
        OutputError: the file cannot be made, or written to.
    """

    def __init__(self, path: Path, run: str) -> None:
        make_folder(path.parent)
        self._path, self._run = path, run
        self._lock = FileLock(f"{path}.lock")
        try:
            self._database = self._open(path)
        except sqlite3.DatabaseError:
            # Damaged, and worth nothing but time.
            path.unlink(missing_ok=True)
            self._database = self._open(path)

    def _open(self, path: Path) -> sqlite3.Connection:
        with self._writing():
            database = sqlite3.connect(path, timeout=60)
            try:
                database.executescript(SCHEMA)
                ((found,),) = database.execute("PRAGMA quick_check(1)")
                if found != "ok":
                    raise sqlite3.DatabaseError(found)
            except sqlite3.DatabaseError:
                database.close()
                raise
        return database

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"{self._path}: cannot be written ({error}); "
                "set ENCODERCHECK_CACHE to another folder"
            ) from error

    def hold(self) -> None:
        """Keep other processes away until this one closes the ledger, or ends.

        Raises:
            OutputError: another one holds it.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(
                f"{self._path}: another screening of the same images is under way; wait for it"
            ) from error

    def forget(self) -> None:
        """Drop everything that earlier runs left."""
        with self._writing(), self._database:
            self._database.execute("DELETE FROM images")

    def has(self, file: str, state: str) -> bool:
        """Tell whether a file was measured in this state before; if so it counts in this run."""
        change = "UPDATE images SET run = ? WHERE file = ? AND state = ?"
        values = (self._run, os.fsencode(file), state)
        with self._writing():
            return self._database.execute(change, values).rowcount == 1

    def add(self, rows: Iterable[Row]) -> None:
        """Keep rows, all or none of them."""
        values = [
            (os.fsencode(row.file), row.state, self._run, row.score, _packed(row.embedding))
            for row in rows
        ]
        with self._writing(), self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?)", values
            )

    def ranked(self, *, limit: int = -1) -> Iterator[tuple[str, float]]:
        """Yield files and scores, the highest score first."""
        rows = self._select("file, score", "score IS NOT NULL", limit, order="score DESC, file")
        yield from ((os.fsdecode(file), score) for file, score in rows)

    def median(self, count: int) -> list[tuple[str, float]]:
        """Return ``count`` files and scores from the middle of the ranking."""
        skip = max(0, self.scored() // 2 - count // 2)
        query = (
            "SELECT file, score FROM images WHERE run = ? AND score IS NOT NULL "
            "ORDER BY score DESC, file LIMIT ? OFFSET ?"
        )
        rows = self._database.execute(query, (self._run, count, skip))
        return [(os.fsdecode(file), score) for file, score in rows]

    def unreadable(self) -> list[str]:
        """Return the files that could not be read as images."""
        rows = self._select("file", "score IS NULL", -1, order="file")
        return [os.fsdecode(file) for (file,) in rows]

    def count(self) -> int:
        """Return how many files have been seen in this run, taken over or new."""
        ((count,),) = self._select("COUNT(*)", "TRUE", -1)
        return int(count)

    def scored(self) -> int:
        """Return how many images have a score."""
        ((count,),) = self._select("COUNT(*)", "score IS NOT NULL", -1)
        return int(count)

    def above(self, threshold: float) -> int:
        """Return how many scores exceed ``threshold``."""
        ((count,),) = self._select("COUNT(*)", "score > ?", -1, values=(threshold,))
        return int(count)

    def embeddings(self, threshold: float) -> Iterator[Tensor]:
        """Yield the embeddings (D,) of those whose scores exceed ``threshold``."""
        kept = "score > ? AND embedding IS NOT NULL"
        for (packed,) in self._select("embedding", kept, -1, values=(threshold,)):
            yield torch.from_numpy(np.frombuffer(packed, np.float16).astype(np.float32))

    def commit(self) -> None:
        """Write what :meth:`has` has taken over."""
        with self._writing():
            self._database.commit()

    def close(self) -> None:
        """Write and close."""
        self.commit()
        self._database.close()
        self._lock.release()

    def _select(
        self,
        what: str,
        condition: str,
        limit: int,
        *,
        order: str = "file",
        values: tuple[float, ...] = (),
    ) -> Iterator[tuple[Any, ...]]:
        query = f"SELECT {what} FROM images WHERE run = ? AND {condition} ORDER BY {order} LIMIT ?"
        yield from self._database.execute(query, (self._run, *values, limit))


def _packed(embedding: Tensor | None) -> bytes | None:
    if embedding is None:
        return None
    unit = torch.nn.functional.normalize(embedding.double(), dim=0)
    return unit.numpy().astype(np.float16).tobytes()


def state_of(file: Path) -> str:
    """Return what changes with a file's content, without reading it; "" for one that is gone."""
    try:
        facts = file.stat()
    except OSError:
        return ""
    return json.dumps([facts.st_size, facts.st_mtime_ns])
