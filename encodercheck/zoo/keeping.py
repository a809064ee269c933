"""Write a folder of results, see ``results.py``: each report whole, and the ledger line by line.

Several processes may write to one folder: what they append are whole lines, one at a time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock

from encodercheck.cache import atomic_write_bytes, atomic_write_text, for_any_system, make_folder
from encodercheck.errors import ConfigError, OutputError
from encodercheck.report import Outcome, Report
from encodercheck.zoo import results
from encodercheck.zoo.results import LEDGER, REPORT, REPORTS, Entry

# What was measured, where the verdict on it is another than the measurements alone give.
MEASURED = "measured.json"
KEY_SHOWN = 12
LONGEST_NAME = 80


class Keeper:
    """The results in a folder, and a way to add to them.

    Raises:
        OutputError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        self._ledger = folder / LEDGER
        self._lock = FileLock(folder / f".{LEDGER}.lock")
        self._entries: dict[str, dict[str, Entry]] = {}
        self._owners: dict[str, str] = {}
        self._since: dict[str, set[str]] = {}
        self._read = 0
        try:
            # There from the first, so that a part without models can be merged too.
            self._ledger.touch()
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot be written to ({error.strerror}); name another folder with --out"
            ) from error
        self.refresh()
        self._since.clear()

    @property
    def known(self) -> frozenset[str]:
        """The keys of results that stand; one that is an error may be luckier the next time."""
        return frozenset(
            key
            for key, entries in self._entries.items()
            if any(entry.outcome != Outcome.ERROR.value for entry in entries.values())
        )

    def refresh(self) -> None:
        """Take in what other processes have added since."""
        try:
            with self._ledger.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    entry = results.parsed(line)
                    if entry is not None:
                        self._take(entry)
        except OSError as error:
            raise OutputError(
                f"{self._ledger}: cannot be read ({error.strerror}); name another folder with --out"
            ) from error

    def since(self, model: str) -> frozenset[str]:
        """Return the keys of results on a model that have come in meanwhile, errors too."""
        return frozenset(self._since.get(model, ()))

    def find(self, key: str, model: str) -> tuple[Entry, Report] | None:
        """Return the result under a key, that of ``model`` before that of a copy of it.

        The report is of what was measured. None where there is none, or it is damaged or another
        than was written, see :meth:`altered`.
        """
        entries = self._entries.get(key, {})
        for entry in (entries.get(model), *reversed(entries.values())):
            if entry is not None and (report := self._measured(entry)) is not None:
                return entry, report
        return None

    def altered(self, key: str, model: str) -> Path | None:
        """Return a report under a key that is there, but not as it was written."""
        files = {self.folder / e.report: e for e in self._entries.get(key, {}).values()}
        own = [f for f, e in files.items() if f.exists() and self._measured(e) is None]
        return next((f for f in own if files[f].model == model), own[0] if own else None)

    def adopt(self, model: str, found: Entry, measured: Report, judged: Report) -> Entry:
        """Keep a result that was found, for ``model`` and as it is judged now."""
        folder = (self.folder / found.report).parent
        if found.model == model:
            told = _written(judged)
            if told == (self.folder / found.report).read_text("utf-8", "replace"):
                return found
            return self._put(found.key, model, measured, judged, {})
        files = {name: data for name, data in beside(folder).items() if name != MEASURED}
        return self._put(found.key, model, measured, judged, files)

    def add(
        self, model: str, key: str, measured: Report, judged: Report, files: Mapping[str, bytes]
    ) -> Entry:
        """Keep a new result: its report, and the files that checks left."""
        known = self._entries.get(key, {}).get(model)
        # A model that is broken as before has no news.
        if known is not None and judged.outcome is Outcome.ERROR and self._same(known, judged):
            return known
        return self._put(key, model, measured, judged, files, fresh=True)

    def place(self, entry: Entry) -> Path:
        """Return the folder of an entry's report."""
        return (self.folder / entry.report).parent

    def _put(
        self,
        key: str,
        model: str,
        measured: Report,
        judged: Report,
        files: Mapping[str, bytes],
        *,
        fresh: bool = False,
    ) -> Entry:
        name = self._folder_name(model, key)
        folder = make_folder(self.folder / REPORTS / name)
        if fresh:
            remove_others(folder, files)
        for file, data in files.items():
            make_folder((folder / file).parent)
            atomic_write_bytes(folder / file, data)
        before, after = _written(measured), _written(judged)
        if before != after:
            atomic_write_text(folder / MEASURED, before)
        atomic_write_text(folder / REPORT, after)
        if before == after:
            (folder / MEASURED).unlink(missing_ok=True)
        entry = Entry(
            key=key,
            model=model,
            sha256=judged.model["sha256"],
            report=f"{REPORTS}/{name}/{REPORT}",
            outcome=judged.outcome.value,
            exit_code=judged.exit_code,
            seconds=round(judged.seconds, 3),
            finished=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            report_sha256=results.sha256(after.encode()),
            measured_sha256=results.sha256(before.encode()) if before != after else "",
        )
        append(self._ledger, self._lock, entry)
        self._take(entry)
        return entry

    def _take(self, entry: Entry) -> None:
        self._entries.setdefault(entry.key, {})[entry.model] = entry
        self._since.setdefault(entry.model, set()).add(entry.key)
        self._owners[entry.report] = entry.model

    def _folder_name(self, model: str, key: str) -> str:
        """Return the name of a result's folder: it says the model, and no other model has it."""
        stem, number = f"{safe_name(model)}-{key[:KEY_SHOWN]}", 1
        name = stem
        while self._owners.get(f"{REPORTS}/{name}/{REPORT}", model) != model:
            number += 1
            name = f"{stem}~{number}"
        return name

    def _measured(self, entry: Entry) -> Report | None:
        """Return the report of what was measured, where all files are as they were written."""
        folder = self.place(entry)
        digests = {REPORT: entry.report_sha256, MEASURED: entry.measured_sha256}
        try:
            files = {
                name: (folder / name).read_bytes()
                for name in digests
                if digests[name] or (folder / name).exists()
            }
            if {name: results.sha256(raw) for name, raw in files.items()} != {
                name: digest for name, digest in digests.items() if digest
            }:
                return None
            return Report.from_dict(json.loads(files.get(MEASURED, files[REPORT])))
        except (OSError, KeyError, TypeError, ValueError, RecursionError):
            return None

    def _same(self, known: Entry, judged: Report) -> bool:
        try:
            kept = results.report(self.folder, known)
        except ConfigError:
            return False
        return all(
            [(f["id"], f["outcome"], f["message"]) for f in report["findings"]]
            == [(f["id"], f["outcome"], f["message"]) for f in kept["findings"]]
            and report["strict"] == kept["strict"]
            for report in (judged.to_dict(),)
        )


def append(ledger: Path, lock: FileLock, entry: Entry) -> None:
    """Add a line to a ledger; a torn one before it stays one of its own.

    Raises:
        OutputError: it cannot be written.
    """
    line = json.dumps(entry.to_dict(), allow_nan=False).encode() + b"\n"
    try:
        with lock, ledger.open("ab+", buffering=0) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = b"\n" + line
            file.write(line)
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(
            f"{ledger}: cannot be written ({error.strerror or error}); free some space, or name "
            "another folder with --out"
        ) from error


def safe_name(model: str) -> str:
    """Return a model's name as one that is safe for a folder.

    >>> safe_name("models/a/model.safetensors"), safe_name("hf://org/name@main")
    ('models-a-model', 'org-name@main')
    """
    name = os.path.normpath(model) if "://" not in model else model.partition("://")[2]
    name = name.removeprefix("fixture:").removesuffix(".safetensors")
    name = re.sub(r"[^A-Za-z0-9._@]+", "-", name)[-LONGEST_NAME:].strip(".-") or "model"
    return for_any_system(name)[:LONGEST_NAME]


def _written(report: Report) -> str:
    values: dict[str, Any] = report.to_dict()
    return json.dumps(values, indent=2, allow_nan=False) + "\n"


def beside(folder: Path) -> dict[str, bytes]:
    """Return what lies beside a report, by its path, and what was measured, if that is another."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and path != folder / REPORT
    }


def remove_others(folder: Path, files: Iterable[str]) -> None:
    """Remove what an earlier scan left: a witness of a check that passes now would be none."""
    kept = {Path(file).parts[0] for file in files} | {REPORT, MEASURED}
    for path in folder.iterdir():
        # What starts with a dot is a file that somebody is writing.
        if path.name in kept or path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
