"""Which run scans which model, where several share a folder of results.

A claim is a lock on a file, and the system takes it back when its process ends, however it ends:
nothing is claimed for ever. Who has a claim looks at the ledger before it scans, and whoever gives
one up has written to the ledger before.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from encodercheck.cache import content_hash, make_folder

CLAIMS = ".claims"
# Each takes an open file. A cluster that scans more models at a time scans the rest unclaimed.
MOST = 400


class Claims:
    """The models that this run has, of those that rest on the same ``ground``.

    Where a folder knows no locks that end with their process nothing is claimed: two runs on it
    scan the same models twice, which does no other harm.
    """

    def __init__(self, folder: Path, ground: str) -> None:
        self._folder, self._ground = make_folder(folder / CLAIMS), ground
        self._held: dict[str, BaseFileLock] = {}

    def take(self, model: str) -> bool:
        """Claim a model, unless another run that lives has it."""
        if model in self._held or len(self._held) >= MOST:
            return True
        lock: BaseFileLock = FileLock(self._path(model))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        except (OSError, NotImplementedError):
            return True
        # It becomes one of these, whose file outlives its process, where the system has no locks.
        if isinstance(lock, SoftFileLock):
            lock.release()
        else:
            self._held[model] = lock
        return True

    def release(self, model: str) -> None:
        """Give a model up: what was found on it is in the ledger, or nothing was."""
        lock = self._held.pop(model, None)
        if lock is None:
            return
        # While it is held: who has opened it meanwhile finds that it is no more.
        with suppress(OSError):
            os.unlink(lock.lock_file)  # noqa: PTH108 - it may be a text
        lock.release()

    def close(self) -> None:
        """Give up all of them."""
        for model in list(self._held):
            self.release(model)

    def _path(self, model: str) -> Path:
        return self._folder / content_hash({"ground": self._ground, "model": model})
