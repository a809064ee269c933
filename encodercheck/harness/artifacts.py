"""The fixture ``artifacts``: what a check leaves behind."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from encodercheck.cache import for_any_system
from encodercheck.errors import EncoderCheckError, OutputError
from encodercheck.harness import exhibiting
from encodercheck.harness.record import CheckRecord

if TYPE_CHECKING:
    from torch import Tensor

    from encodercheck.harness.state import ScanState
    from encodercheck.witness import Witness


class Artifacts:
    """A check's own folder, and its witness."""

    def __init__(self, record: CheckRecord, state: ScanState) -> None:
        self._record = record
        self._state = state
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def directory(self) -> Path:
        """The check's own folder, created on demand; temporary where artifacts are not kept.

        Raises:
            OutputError: it cannot be created.
        """
        try:
            if self._state.artifacts_dir is None:
                self._temporary = self._temporary or tempfile.TemporaryDirectory()
                return Path(self._temporary.name)
            directory = self._state.artifacts_dir / folder_name(self._record.info.id)
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._noted(_unwritable(self._state.artifacts_dir, error)) from error
        return directory

    def witness(self, witness: Witness) -> None:
        """Keep the proof that the check failed: its sentence is the message of the finding.

        Raises:
            OutputError: it cannot be written.
        """
        self._record.sentence = witness.sentence()
        exhibiting.witness(self._record, self._state, witness)
        if self._state.artifacts_dir is None:
            return
        directory = self.directory
        try:
            path = witness.save(
                directory,
                check=self._record.info.id,
                seed=self._state.seed,
                profile=self._state.profile.name,
                model_sha256=self._state.encoder.provenance.sha256,
            )
        except OSError as error:
            raise self._noted(_unwritable(directory, error)) from error
        except EncoderCheckError as error:
            raise self._noted(error) from None
        self._record.witness = str(path)

    def picture(self, pixels: Tensor, *, caption: str, alt: str) -> None:
        """Show pixels (3, H, W) or (1, H, W) in [0, 1] in the HTML report.

        ``alt`` says in words what there is to see. Pictures above 96 pixels are made smaller, and
        those beyond the 24th of a check are left out.
        """
        exhibiting.picture(self._record, pixels, caption=caption, alt=alt)

    def clean(self) -> None:
        """Remove the temporary folder."""
        if self._temporary is not None:
            self._temporary.cleanup()

    def _noted(self, error: EncoderCheckError) -> EncoderCheckError:
        """Note the error in the record: a check that swallows it must not pass."""
        self._record.fault = error
        return error


def folder_name(check: str) -> str:
    """Return a check's id as a name that is safe for a folder, and no other check's."""
    safe = re.sub(r"[^\w.\[\]-]+", "_", check).strip(".")
    if safe == check == for_any_system(safe) and len(safe) <= 100:
        return safe
    return f"{for_any_system(safe[:80])}-{hashlib.sha256(check.encode()).hexdigest()[:8]}"


def _unwritable(place: Path | None, error: OSError) -> OutputError:
    return OutputError(f"{place or tempfile.gettempdir()}: cannot be written to ({error.strerror})")
