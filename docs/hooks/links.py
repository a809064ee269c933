"""Links between the pages, the README and the rest of the repository."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

# [text](target): the target of a link or a picture. Code has its own rules, see below.
LINK = re.compile(r"(?P<head>\]\()(?P<target>[^)\s]+)(?P<tail>\))")
CODE = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)[^\n]*$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
DOCS = Path("docs")


def moved(markdown: str, *, of: Path, to: Path) -> str:
    """Return a text of the file ``of`` with its relative links as they are from ``to``."""

    def move(target: str) -> str:
        path, hash_, anchor = target.partition("#")
        if not path:
            return target
        there = os.path.normpath(of.parent / path)
        return Path(os.path.relpath(there, to.parent)).as_posix() + hash_ + anchor

    return replaced(markdown, move)


def outward(markdown: str, place: Path, root: Path, repository: str) -> str:
    """Return a page with links to files outside ``docs/`` as links to the repository."""

    def lead(target: str) -> str:
        path, hash_, anchor = target.partition("#")
        there = Path(os.path.normpath(place.parent / path))
        if not path or DOCS in there.parents:
            return target
        if not (root / there).exists():
            # For mkdocs to complain about.
            return target
        kind = "tree" if (root / there).is_dir() else "blob"
        return f"{repository}/{kind}/main/{there.as_posix()}{hash_}{anchor}"

    return replaced(markdown, lead)


def replaced(markdown: str, target: Callable[[str], str]) -> str:
    """Return the text with every relative link replaced, outside code."""

    def one(found: re.Match[str]) -> str:
        old = found["target"]
        return found["head"] + (old if "://" in old else target(old)) + found["tail"]

    parts, end = [], 0
    for code in CODE.finditer(markdown):
        parts += [LINK.sub(one, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(one, markdown[end:])])
