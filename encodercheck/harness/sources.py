"""What check files say of themselves, read off their sources: to import them takes seconds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

MARKED = re.compile(r"""@pytest\.mark\.check\(\s*["']([^"']+)["']""")


def written_ids(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the ids that markers in the check files of ``folder`` give, and the files.

    Ids that are computed, or are the functions' names, are not among them.
    """
    for file in sorted(folder.glob("check_*.py")):
        for id_ in MARKED.findall(file.read_text(encoding="utf-8", errors="replace")):
            yield id_, file
