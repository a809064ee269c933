"""Where the commands write: the console, and report files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from encodercheck.errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console

STDOUT = "-"


@contextmanager
def console(*, stderr: bool = False) -> Iterator[Console]:
    """Yield a console on a copy of the standard stream.

    Checks run under pytest's capture, which takes the original file descriptors away: what is
    written to the copy is still seen. NO_COLOR is honoured, and no control codes go into a pipe.
    """
    from rich.console import Console

    from encodercheck.harness.listener import uncaptured_stream

    with uncaptured_stream(2 if stderr else 1) as stream:
        yield Console(file=stream, highlight=False, soft_wrap=True, markup=False, emoji=False)


def require_writable(path: Path | None) -> None:
    """Find out before the scan, not after it, that a file could not be written.

    Raises:
        OutputError: it cannot.
    """
    if path is None or str(path) == STDOUT:
        return
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file")
    if path.exists() and not path.is_file():
        # A file is replaced as a whole, which would be the end of /dev/null.
        raise OutputError(f"{path}: is no regular file; name a file, or - for stdout")
    require_writable_folder(path.parent)


def require_writable_folder(folder: Path) -> None:
    """Create ``folder`` where it is missing and see that a file can be made in it.

    Raises:
        OutputError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{folder}: cannot be written to ({reason}); name another place"
        ) from error
