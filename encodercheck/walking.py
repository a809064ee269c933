"""Walk through folders: each file once, and what was passed over is known afterwards.

Links to folders are not followed: two that lead to their own folder make a walk that never ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from encodercheck.errors import ConfigError

MOST = 1_000_000
"""How many files and folders one walk looks at."""
DEEPEST = 100
SHOWN = 3


class Walk:
    """A walk through folders, and what it has passed over.

    With ``hidden`` it takes what starts with a dot too. Of hidden files it only says that it passed
    over those with one of the ``endings``.

    Raises:
        ConfigError: there is more to look at than ``most``, or folders are nested too deep.
    """

    def __init__(
        self, *, hidden: bool = False, endings: tuple[str, ...] = (), most: int = MOST
    ) -> None:
        self._takes_hidden = hidden
        self._endings = endings
        self._most = most
        self._left_over: dict[str, dict[str, None]] = {
            kind: {} for kind in ("link to a folder", "hidden file or folder", "unreadable folder")
        }
        self._looked_at = 0

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the names of a folder's folders and of its files, each in order."""
        folders: list[str] = []
        files: list[str] = []
        try:
            with os.scandir(folder or ".") as entries:
                for entry in entries:
                    self._count(folder)
                    if not self._is_passed_over(entry, below(folder, entry.name)):
                        (folders if _is_folder(entry) else files).append(entry.name)
        except OSError:
            self._note("unreadable folder", folder)
        return sorted(folders), sorted(files)

    def files(self, folder: str, depth: int = 0) -> Iterator[str]:
        """Yield the paths of all files in a folder and below."""
        require_shallow(folder, depth)
        folders, files = self.entries(folder)
        yield from (below(folder, name) for name in files)
        for name in folders:
            yield from self.files(below(folder, name), depth + 1)

    def skipped(self) -> str:
        """Say what was passed over, "" for nothing."""
        return ", ".join(
            _told(kind, sorted(paths)) for kind, paths in self._left_over.items() if paths
        )

    def _is_passed_over(self, entry: os.DirEntry[str], path: str) -> bool:
        is_folder = _is_folder(entry)
        if entry.name.startswith(".") and not self._takes_hidden:
            if is_folder or entry.name.lower().endswith(self._endings):
                self._note("hidden file or folder", path)
            return True
        if is_folder and entry.is_symlink():
            self._note("link to a folder", path)
            return True
        return False

    def _note(self, kind: str, path: str) -> None:
        self._left_over[kind][os.path.normpath(path)] = None

    def _count(self, folder: str) -> None:
        self._looked_at += 1
        if self._looked_at > self._most:
            raise ConfigError(
                f"{folder}: more than {self._most:,} files and folders to look through; name a "
                "smaller folder"
            )


def below(folder: str, name: str) -> str:
    """Return the path of what is in a folder; "" is the working directory."""
    return os.path.join(folder, name)  # noqa: PTH118 - a Path takes five times as long


def require_shallow(folder: str, depth: int) -> None:
    """Refuse folders in folders without end.

    Raises:
        ConfigError: this one is nested too deep.
    """
    if depth > DEEPEST:
        shown = f"{folder[:60]}..."
        raise ConfigError(f"{shown}: more than {DEEPEST} folders deep; name a folder further down")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link in a circle, which matters only where it is read


def _told(kind: str, paths: list[str]) -> str:
    """Return "2 links to folders (a, b)"."""
    many = {
        "link to a folder": "links to folders",
        "hidden file or folder": "hidden files or folders",
        "unreadable folder": "unreadable folders",
    }
    shown = ", ".join(paths[:SHOWN]) + (", ..." if len(paths) > SHOWN else "")
    return f"{len(paths):,} {kind if len(paths) == 1 else many[kind]} ({shown})"
