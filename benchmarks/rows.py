"""Rows of measurements in a data file: added one by one, so that a killed run goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock

from encodercheck import fixtures
from encodercheck.cache import atomic_write_text
from encodercheck.errors import FixtureError

Row = dict[str, Any]


class Member(Protocol):
    """What a row is about: an encoder that a benchmark can build."""

    @property
    def architecture(self) -> str:
        """What it is, as the tables say it."""

    @property
    def kind(self) -> str:
        """What was done to it."""

    @property
    def seed(self) -> int:
        """What decides the rest."""

    @property
    def reported(self) -> bool:
        """Whether nothing was ever tuned on it."""

    def build(self) -> fixtures.Built:
        """Return it, from the cache where it is there."""


@dataclass(frozen=True)
class Rows:
    """The rows in a JSON file, one a line; several processes may add to them.

    What was refused according to ``elsewhere`` is not built again: training ends the same way.
    """

    path: Path
    elsewhere: tuple[Rows, ...] = ()

    def read(self) -> list[Row]:
        """Return the rows so far."""
        found: list[Row] = json.loads(self.path.read_text()) if self.path.exists() else []
        return found

    @property
    def lock(self) -> FileLock:
        """What to hold while files of the measurements are rewritten."""
        return FileLock(self.path.with_suffix(".lock"))

    def add(self, what: str, member: Member, measure: Callable[[], Row]) -> None:
        """Measure a member of the zoo unless it has been, and keep the row."""
        key = {"architecture": member.architecture, "kind": member.kind, "seed": member.seed}
        known = [row for row in self.read() if key.items() <= row.items()]
        others = [row for rows in self.elsewhere for row in rows.read()]
        refused = [r for r in (*known, *others) if "refused" in r and key.items() <= r.items()]
        if refused or any(row["what"] == what for row in known):
            return
        started = time.monotonic()
        try:
            result = measure()
        except FixtureError as error:
            result = {"refused": str(error)}
        row = {"what": what, **key, "reported": member.reported, **result}
        row["threads"] = torch.get_num_threads()
        with self.lock:
            text = ",\n".join(json.dumps(one) for one in [*self.read(), row])
            atomic_write_text(self.path, f"[\n{text}\n]\n")
        print(f"{time.monotonic() - started:.0f} s {json.dumps(row)}", flush=True)
