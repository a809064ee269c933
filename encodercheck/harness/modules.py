"""Check files imported in a scan leave nothing behind, and are never mistaken for one another."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

OWN_PACKAGE = __name__.partition(".")[0]


@contextmanager
def restored_modules(folder: Path) -> Iterator[set[Path]]:
    """Put ``sys.modules`` and ``sys.path`` back at the end, but keep libraries that were imported.

    Only what was imported from ``folder`` is forgotten: to forget a library that a check imported
    first would have the next check import it twice. Yields a set for the check files collected.
    """
    modules, path = dict(sys.modules), list(sys.path)
    collected: set[Path] = set()
    try:
        yield collected
    finally:
        files = {os.path.realpath(file) for file in collected}
        own = _Ownership(folder, path, files)
        for name in set(sys.modules) - set(modules):
            if own.has(sys.modules[name]):
                del sys.modules[name]
        sys.modules.update(modules)
        sys.path[:] = path


def evict_namesakes(file: Path, root: Path) -> None:
    """Forget modules from elsewhere that go by the name which ``file`` is going to be imported by.

    pytest's importlib mode returns whatever ``sys.modules`` has under that name, and the names are
    short: two packages called ``checks`` are both ``checks.check_a``.
    """
    for name, location in _names(file, root):
        module = sys.modules.get(name)
        if module is None or name == OWN_PACKAGE or _file(module) == os.path.realpath(location):
            continue
        for victim in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
            del sys.modules[victim]


def _names(file: Path, root: Path) -> list[tuple[str, Path]]:
    """Return the names, and the files, of ``file`` and of the packages that it is in."""
    packages: list[Path] = []
    folder = file.parent
    while (folder / "__init__.py").is_file():
        packages.insert(0, folder)
        folder = folder.parent
    if packages:
        names = [(".".join(p.relative_to(folder).parts), p / "__init__.py") for p in packages]
        return [*names, (f"{names[-1][0]}.{file.stem}", file)]
    if file.is_relative_to(root):
        return [(".".join(file.relative_to(root).with_suffix("").parts), file)]
    return []


class _Ownership:
    """Tells the modules of a check folder from libraries that lie beneath it."""

    def __init__(self, folder: Path, path: list[str], collected: set[str]) -> None:
        self.home = os.path.realpath(folder)
        self.collected = collected
        self.libraries = [
            entry
            for entry in map(os.path.realpath, filter(None, path))
            if entry == self.home or _below(entry, self.home)
        ]

    def has(self, module: ModuleType) -> bool:
        file = _file(module)
        if file is None:
            return False
        if file in self.collected or Path(file).name == "conftest.py":
            return True
        return _below(file, self.home) and not any(
            _below(file, library) for library in self.libraries
        )


def _file(module: ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    return os.path.realpath(file) if isinstance(file, str) else None


def _below(file: str, folder: str) -> bool:
    return file.startswith(folder.rstrip(os.sep) + os.sep)
