"""Where a model lies, as a URI that code scanning can place in a repository."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import Any
from urllib.parse import quote

from encodercheck.render.words import is_black_box

ROOT = "%SRCROOT%"
"""What relative URIs are relative to: the repository."""
# GitHub refuses a whole file for one URI of another scheme than the checkout's, which is "file".
ELSEWHERE = {"fixture:": "fixture", "hf://": "hf"}


def artifact_uri(model: dict[str, Any], root: Path) -> str:
    """Return the URI of a model, relative to ``root`` where it is in it.

    What is no file on this disk becomes a path too: ``fixture:clean`` is ``fixture/clean``.

    >>> artifact_uri({"path": "hf://org/name@main", "architecture": "resnet50"}, Path("/repo"))
    'hf/org/name%40main'
    """
    path = str(model["path"])
    for prefix, folder in ELSEWHERE.items():
        if path.startswith(prefix):
            return _below(folder, path.removeprefix(prefix))
    if is_black_box(model):
        return _below("black-box", path)
    whole = Path(os.path.normpath(root / path))
    if whole.is_relative_to(root):
        return _quoted(whole.relative_to(root).as_posix())
    return f"file:///{_quoted(whole.as_posix().lstrip('/'))}"


def _below(folder: str, path: str) -> str:
    # From the root no ".." leads out.
    inside = posixpath.normpath(f"/{path}").lstrip("/")
    return _quoted(f"{folder}/{inside}")


def _quoted(path: str) -> str:
    # File names may be no text: then they hold surrogates, which UTF-8 has no bytes for.
    return quote(path.encode("utf-8", "surrogatepass"), safe="/")
