"""What is known of fixtures from earlier verifications: a file for each finding, whole or absent.

A finding's key is a hash of all that it depends on, so that what is found under it still holds. A
finding that is an error is not kept: the next run may have more luck.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encodercheck.cache import atomic_write_text, cache_dir, content_hash, make_folder
from encodercheck.errors import OutputError
from encodercheck.report import Finding, Outcome

# Raised when a file of an earlier version of this code would mean something else.
FORMAT = 1


@dataclass(frozen=True)
class Fate:
    """How the building of a fixture ended: the model file, or why it was refused."""

    path: Path | None = None
    refused: str = ""

    @property
    def sha256(self) -> str | None:
        """The hash of the model file as it is now; None where it has gone."""
        try:
            return None if self.path is None else content_hash(self.path.read_bytes())
        except OSError:
            return None


def read_finding(ground: str, sha256: str) -> Finding | None:
    """Return what a check found on a model; None where it is not known, or the file is damaged."""
    try:
        return Finding.from_dict(_read(_finding_path(ground, sha256)))
    except (KeyError, TypeError, ValueError):
        return None


def read_findings(grounds: Mapping[str, str], sha256: str) -> dict[str, Finding]:
    """Return what is known of a model, by check, given what each check rests on."""
    found = {check: read_finding(ground, sha256) for check, ground in grounds.items()}
    return {check: finding for check, finding in found.items() if finding is not None}


def keep_finding(ground: str, sha256: str, finding: Finding) -> None:
    """Keep what a check found on a model, unless it is an error."""
    if finding.outcome is not Outcome.ERROR:
        _write(_finding_path(ground, sha256), finding.to_dict())


def read_fate(recipe: str, sources: str) -> Fate | None:
    """Return how building a recipe ended, given hashes of the recipe and of the code that builds.

    A model file counts whatever built it: it is looked at again. A refusal is that of its builders.
    """
    try:
        known = _read(_fate_path(recipe))
        if known["path"] is not None:
            return Fate(path=cache_dir() / known["path"])
        return Fate(refused=str(known["refused"])) if known["sources"] == sources else None
    except (KeyError, TypeError, ValueError):
        return None


def keep_fate(recipe: str, sources: str, fate: Fate) -> None:
    """Keep how building a recipe ended."""
    # The cache may be moved as a whole.
    path = None if fate.path is None else os.path.relpath(fate.path, cache_dir())
    _write(_fate_path(recipe), {"path": path, "refused": fate.refused, "sources": sources})


def _finding_path(ground: str, sha256: str) -> Path:
    key = content_hash({"format": FORMAT, "ground": ground, "model": sha256})
    return cache_dir() / "verify" / f"{key}.json"


def _fate_path(recipe: str) -> Path:
    return cache_dir() / "verify" / "fixtures" / f"{content_hash([FORMAT, recipe])}.json"


def _write(path: Path, content: Mapping[str, Any]) -> None:
    whole = {"sha256": content_hash(content), "content": content}
    # A cache that cannot be written costs time and nothing else.
    with suppress(OutputError):
        make_folder(path.parent)
        atomic_write_text(path, json.dumps(whole, indent=2) + "\n")


def _read(path: Path) -> dict[str, Any]:
    """Return what :func:`_write` wrote.

    Raises:
        KeyError, TypeError, ValueError: there is nothing, or it is damaged.
    """
    try:
        whole = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: not there") from error
    content: dict[str, Any] = whole["content"]
    if whole["sha256"] != content_hash(content):
        raise ValueError(f"{path}: damaged")
    return content
