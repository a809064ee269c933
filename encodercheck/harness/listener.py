"""Who watches a scan: told what was collected, what runs, how far it is and how it ended."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TextIO

from encodercheck.report import Finding


@dataclass(frozen=True)
class CheckInfo:
    """What is known of a check before it runs.

    ``check`` is the place, such as ``check_collapse.py::check_rank``; ``catches`` are the poisoned
    fixtures, by name or pattern, that the check is to fail on. ``cost`` is how long it takes, in
    parts of what another takes: with ``--fail-fast`` the cheapest run first.
    """

    id: str
    check: str
    title: str
    severity: str
    catches: tuple[str, ...] = ()
    cost: float = 1.0


class Listener(Protocol):
    """Watches a scan. A check that never started (its file was skipped) still finishes."""

    def collected(self, checks: Sequence[CheckInfo]) -> None:
        """Note what is going to run, in order."""

    def started(self, info: CheckInfo) -> None:
        """Note that a check begins."""

    def progress(self, info: CheckInfo, step: int, total: int, note: str) -> None:
        """Note how far the running check is. Standard output is captured meanwhile."""

    def finished(self, finding: Finding) -> None:
        """Note how a check ended."""


class Relay:
    """Passes everything on to another listener."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def collected(self, checks: Sequence[CheckInfo]) -> None:
        """Pass it on."""
        self._listener.collected(checks)

    def started(self, info: CheckInfo) -> None:
        """Pass it on."""
        self._listener.started(info)

    def progress(self, info: CheckInfo, step: int, total: int, note: str) -> None:
        """Pass it on."""
        self._listener.progress(info, step, total, note)

    def finished(self, finding: Finding) -> None:
        """Pass it on."""
        self._listener.finished(finding)


class SilentListener:
    """Watches without a word; the base for listeners that care about a few events."""

    def collected(self, checks: Sequence[CheckInfo]) -> None:
        """Ignore it."""

    def started(self, info: CheckInfo) -> None:
        """Ignore it."""

    def progress(self, info: CheckInfo, step: int, total: int, note: str) -> None:
        """Ignore it."""

    def finished(self, finding: Finding) -> None:
        """Ignore it."""


SILENT: Listener = SilentListener()


def uncaptured_stream(fd: int = 1) -> TextIO:
    """Open a stream on a copy of a file descriptor, to write to while a check is captured.

    pytest points descriptors 1 and 2 at a temporary file while a check runs, so that a console on
    ``sys.stdout`` shows nothing live. Open this before the scan; close it afterwards, which leaves
    ``fd`` itself open.
    """
    return os.fdopen(os.dup(fd), "w", encoding="utf-8", errors="replace", buffering=1)
