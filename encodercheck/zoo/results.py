"""A folder of results: a report for each model, and a ledger that says which there are.

::

    DIR/ledger.jsonl                            a line for each result, appended
    DIR/reports/<name>-<key[:12]>/report.json   schema encodercheck.report/1
    DIR/reports/<name>-<key[:12]>/EC202/...     witnesses; the report names them from its folder
    DIR/.claims/...                             locks on the models under way, see claims.py

A line is written after the report that it is about, so that whatever ends a run leaves no line
without its report. A torn last line is a line that was never written. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from encodercheck.errors import ConfigError
from encodercheck.report import Outcome
from encodercheck.weights.header import located, os_reason

SCHEMA = "encodercheck.ledger/1"
LEDGER = "ledger.jsonl"
REPORTS = "reports"
REPORT = "report.json"
WAY_OUT = "name a folder that `encodercheck scan --out` wrote"
# No line of ours comes near it: a file of one endless line is none.
LONGEST_LINE = 100_000
# In order of how bad they are for a verdict.
BADNESS = {0: 0, 2: 1, 1: 2}


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: one result.

    ``key`` is a hash of all that the result depends on; ``model`` is what the user called it;
    ``report`` is the path of its report, relative to the folder, with forward slashes; ``finished``
    is an ISO time in UTC. ``report_sha256`` and ``measured_sha256`` are the digests of the report
    and of ``measured.json`` beside it as they were written; "" for none, and in ledgers of earlier
    versions, whose results are not taken over.
    """

    key: str
    model: str
    sha256: str
    report: str
    outcome: str
    exit_code: int
    seconds: float
    finished: str
    report_sha256: str = ""
    measured_sha256: str = ""

    @property
    def identity(self) -> tuple[str, str]:
        """What a folder has one result of."""
        return self.model, self.key

    @property
    def rank(self) -> tuple[str, int, str, str]:
        """Entries in order, later results last; where times are equal, the worse result."""
        return self.finished, BADNESS[self.exit_code], self.key, self.report

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as the ledger has it."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Entry:
        """Return what :meth:`to_dict` was made from.

        Raises:
            KeyError, TypeError, ValueError: it was not, or its report lies outside the folder.
        """
        if values["schema"] != SCHEMA:
            raise ValueError("another schema")
        names = ("key", "model", "sha256", "report", "outcome", "finished")
        texts = {name: values[name] for name in names}
        texts |= {name: values.get(name, "") for name in ("report_sha256", "measured_sha256")}
        if not all(isinstance(text, str) for text in texts.values()):
            raise TypeError("not a text")
        seconds = float(values["seconds"])
        path = PurePosixPath(texts["report"])
        if path.is_absolute() or ".." in path.parts or path.name != REPORT or "\\" in str(path):
            raise ValueError("its report is not in the folder")
        if values["exit_code"] not in BADNESS or not 0 <= seconds < math.inf:
            raise ValueError("no exit code, or no time")
        texts["outcome"] = Outcome(texts["outcome"]).value
        return cls(**texts, exit_code=int(values["exit_code"]), seconds=seconds)


def lines(folder: Path | str) -> Iterator[Entry]:
    """Yield every entry of a ledger, in the order in which they were written.

    What is no entry is passed over: a line that was torn by the end of its process is one.

    Raises:
        ConfigError: the folder has no ledger that can be read.
    """
    path = Path(folder) / LEDGER
    try:
        with path.open("rb") as file:
            while line := file.readline(LONGEST_LINE):
                entry = parsed(line)
                if entry is not None:
                    yield entry
    except OSError as error:
        raise ConfigError(f"{located(path)}: {os_reason(error)}; {WAY_OUT}") from error


def parsed(line: bytes) -> Entry | None:
    """Return the entry that a line is; None for anything else, a line without its end too."""
    if not line.endswith(b"\n"):
        return None
    try:
        return Entry.from_dict(json.loads(line))
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def read(folder: Path | str) -> Iterator[Entry]:
    """Yield what a folder says of each model: its latest result, in order of the models' names.

    Raises:
        ConfigError: the folder has no ledger that can be read.
    """
    latest: dict[str, Entry] = {}
    for entry in lines(folder):
        known = latest.get(entry.model)
        if known is None or known.rank <= entry.rank:
            latest[entry.model] = entry
    yield from (latest[model] for model in sorted(latest))


def reports(folder: Path | str) -> Iterator[dict[str, Any]]:
    """Yield the report of each entry that :func:`read` does, see :func:`report`."""
    for entry in read(folder):
        yield report(folder, entry)


def report(folder: Path | str, entry: Entry) -> dict[str, Any]:
    """Return the report of an entry; its witnesses are named as they are reached from here.

    Raises:
        ConfigError: it is missing or damaged, or is another than was written.
    """
    path = Path(folder) / entry.report
    try:
        raw = path.read_bytes()
        if entry.report_sha256 and sha256(raw) != entry.report_sha256:
            raise ConfigError(
                f"{located(path)}: not the report that was written, by its digest in the ledger; "
                "scan its model again"
            )
        values = json.loads(raw)
        for finding in values["findings"]:
            if finding["witness"] is not None:
                finding["witness"] = str(path.parent / _inside(finding["witness"]))
    except OSError as error:
        raise ConfigError(f"{located(path)}: {os_reason(error)}; scan its model again") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{located(path)}: a damaged report; scan its model again") from error
    assert isinstance(values, dict)
    return values


def sha256(raw: bytes) -> str:
    """Return the digest of a file, as the ledger has it."""
    return hashlib.sha256(raw).hexdigest()


def _inside(witness: str) -> str:
    """Return the path of a witness within the folder of its report.

    Raises:
        ValueError: it leads out of it.
    """
    path = PurePosixPath(witness)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("a witness outside the folder")
    return witness
