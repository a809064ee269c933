"""Installed check packs: distributions with an ``encodercheck.checks`` entry point."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType

from encodercheck.errors import ConfigError

GROUP = "encodercheck.checks"


@dataclass(frozen=True)
class Pack:
    """An installed check pack: the distribution that brings it, and its folder or file.

    ``name`` is the entry point's, and ``version`` empty, where no distribution is known.
    """

    name: str
    version: str
    path: Path


def installed_packs() -> list[Path]:
    """Return the folder or file of every installed check pack, by name.

    Raises:
        ConfigError: a pack cannot be imported. A scan without it would look clean for too little.
    """
    return [pack.path for pack in find_packs()]


def find_packs() -> list[Pack]:
    """Return every installed check pack, by the name of its entry point.

    Raises:
        ConfigError: a pack cannot be imported.
    """
    entries = sorted(
        metadata.entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)
    )
    return [_pack(entry) for entry in entries]


def _pack(entry: metadata.EntryPoint) -> Pack:
    path, distribution = _locate(entry), entry.dist
    if distribution is None:
        return Pack(entry.name, "", path)
    return Pack(distribution.name, distribution.version, path)


def _locate(entry: metadata.EntryPoint) -> Path:
    before = set(sys.modules)
    try:
        module = entry.load()
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"check pack {entry.name} ({entry.value}) cannot be imported: "
            f"{type(error).__name__}: {error}; mend or uninstall it"
        ) from error
    folders, file = list(getattr(module, "__path__", [])), getattr(module, "__file__", None)
    if not isinstance(module, ModuleType) or not (folders or file):
        raise ConfigError(
            f"check pack {entry.name} ({entry.value}): neither a package nor a module, "
            f"but a {type(module).__name__}"
        )
    if folders:
        return Path(folders[0])
    if module.__name__ not in before:
        # pytest imports the file again, and only then explains its asserts.
        sys.modules.pop(module.__name__, None)
    return Path(str(file))
