"""``scan --resume``: keep what an interrupted scan found, and say so when a later one goes on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encodercheck.cli.ending import say
from encodercheck.config.rules import Rules
from encodercheck.errors import EncoderCheckError

if TYPE_CHECKING:
    from encodercheck.harness.state import ScanState
    from encodercheck.report import Report
    from encodercheck.resuming import Unfinished


@dataclass(frozen=True)
class Resumable:
    """A scan of one model that may be interrupted, and what is kept of it then."""

    model: str | None
    checks: list[Path]
    keyword: str | None
    rules: Rules
    options: dict[str, Any]
    state: ScanState

    def take(self) -> Unfinished | None:
        """Return what an interrupted scan found, and say how much that is."""
        from encodercheck import resuming

        key = self._key
        found = resuming.take(key) if key is not None else None
        if found is None:
            say("--resume: no interrupted scan of this model with these options; starting anew")
        else:
            ids = ", ".join(finding.id for finding in found.findings)
            say(f"resumed: {ids} are as the interrupted scan found them")
        return found

    def keep(self, report: Report) -> None:
        """Keep what a report of an interrupted scan has, where that is possible."""
        from encodercheck import resuming

        with suppress(EncoderCheckError):
            if self._key is None:
                return
            found = resuming.keep(self._key, report.findings, self.state.traits)
            if found.findings:
                say(f"findings kept: {len(found.findings)}; --resume goes on from there")

    def drop(self) -> None:
        """Forget what was kept: the scan came to its end."""
        from encodercheck import resuming

        if self._key is not None:
            resuming.drop(self._key)

    @cached_property
    def _key(self) -> str | None:
        from encodercheck import resuming
        from encodercheck.zoo.keys import Settings

        if self.model is None:
            return None
        settings = Settings(
            **self.options, checks=tuple(self.checks), keyword=self.keyword, rules=self.rules
        )
        return resuming.key_of(self.model, settings, self.state)
