"""Scans in processes of their own, and what their folders of results say of them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from encodercheck.zoo import results
from encodercheck.zoo.results import LEDGER, REPORT, REPORTS, Entry


def begun(zoo: Sequence[Path], out: Path, *options: str, threads: int | None) -> subprocess.Popen:
    """Begin a scan by the quick profile; its output goes to ``out`` with the suffix ``.log``.

    Where ``threads`` is a number, a process that is told nothing else computes with so many.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    listed = out.with_suffix(".txt")
    listed.write_text("".join(f"{path}\n" for path in zoo))
    command = [sys.executable, "-m", "encodercheck", "scan", "--from", str(listed), "--no-config"]
    command += ["--profile", "quick", "--device", "cpu", "--out", str(out), *options]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment |= {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    with out.with_suffix(".log").open("wb") as log:
        # A session of its own, so that all of it can be killed at a time.
        return subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def entries(*outs: Path) -> list[Entry]:
    """Return what the ledgers have, line by line."""
    return [entry for out in outs for entry in results.lines(out)]


def ended(entry: Entry) -> float:
    """Return when a model was done, in seconds since 1970."""
    return datetime.fromisoformat(entry.finished).timestamp()


def span(found: Iterable[Entry]) -> tuple[float, float]:
    """Return when the first model was begun, and when the last one was done."""
    times = [(ended(entry) - entry.seconds, ended(entry)) for entry in found]
    return min(start for start, _ in times), max(end for _, end in times)


def outcomes(found: Iterable[Entry]) -> dict[str, int]:
    """Return how many models ended how."""
    return dict(Counter(entry.outcome for entry in found))


def fingerprint(out: Path, entry: Entry) -> str:
    """Return a hash of all that is in a result's folder."""
    folder, digest = (out / entry.report).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def faults(out: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """Return which models have no row or report, which more than one, and which not their own."""
    found = entries(out)
    rows = Counter(entry.model for entry in found)
    reports = Counter(path.parent.name for path in (out / REPORTS).glob(f"*/{REPORT}"))
    owned = Counter(Path(entry.report).parent.name for entry in found)
    return {
        "lost": sorted(set(names) - set(rows)),
        "doubled": sorted(model for model, count in rows.items() if count > 1)
        + sorted(name for name, count in owned.items() if count > 1)
        + sorted(set(reports) - set(owned)),
        "broken": [entry.model for entry in found if not _is_whole(out, entry)],
    }


def whole_lines(out: Path) -> bytes:
    """Return what is in the ledger, without a last line that was cut off."""
    path = out / LEDGER
    text = path.read_bytes() if path.exists() else b""
    return text[: text.rfind(b"\n") + 1]


def _is_whole(out: Path, entry: Entry) -> bool:
    try:
        values = json.loads((out / entry.report).read_bytes())
    except (OSError, ValueError):
        return False
    told = (values["model"]["path"], values["outcome"], values["exit_code"])
    return told == (entry.model, entry.outcome, entry.exit_code)
