"""Where the checks of a suite come from: built in, an installed pack, a path that was named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from encodercheck.harness.identity import shown
from encodercheck.harness.listener import CheckInfo
from encodercheck.harness.packs import find_packs
from encodercheck.harness.runner import builtin_suite, collect

BUILT_IN: Literal["built-in"] = "built-in"


@dataclass(frozen=True)
class Origin:
    """A folder or file of checks, and who brought it."""

    kind: Literal["built-in", "pack", "path"]
    path: Path
    name: str = ""
    version: str = ""

    def __str__(self) -> str:
        if self.kind == "pack":
            return " ".join(filter(None, ["pack", self.name, self.version]))
        return shown(self.path) if self.kind == "path" else BUILT_IN

    def holds(self, file: Path) -> bool:
        """Tell whether a file of checks lies here."""
        home = self.path.absolute()
        return home == file or home in file.parents


@dataclass(frozen=True)
class Listed:
    """A check, the file that defines it, and where that comes from."""

    info: CheckInfo
    file: Path
    origin: Origin


def list_origins(checks: Sequence[str | Path] = ()) -> list[Listed]:
    """Return the checks that a scan with ``checks`` would run, in order.

    Raises:
        ConfigError: a path, a check pack or a check file is unusable.
    """
    origins = [
        Origin(BUILT_IN, builtin_suite()),
        *(Origin("pack", pack.path, pack.name, pack.version) for pack in find_packs()),
        *(Origin("path", Path(path).absolute()) for path in checks),
    ]
    parts = collect([origin.path for origin in origins], None)
    return [_listed(info, part.root.folder, origins) for part in parts for info in part.infos]


def _listed(info: CheckInfo, folder: Path, origins: Sequence[Origin]) -> Listed:
    # Where it was found, and not where a link leads: every part is the folder of an origin.
    file = folder / info.check.partition("::")[0]
    return Listed(info, file, next(origin for origin in origins if origin.holds(file)))
