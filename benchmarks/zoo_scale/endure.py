"""A thousand models by several processes, killed in the middle: what is left, and what it takes."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.zoo_scale import scans
from benchmarks.zoo_scale.making import make
from encodercheck.cache import atomic_write_text
from encodercheck.verify.verifying import cores

EVERY = 50
PAUSE = 0.5
Sample = dict[str, Any]


def measure(place: Path, count: int, *, keyword: str) -> dict[str, Any]:
    """Scan, kill all of it after half of the models, scan on; return what there is then.

    What is in ``place`` already is taken up: this may be stopped and started again.
    """
    certified = make(place / "zoo", count)
    zoo = sorted((place / "zoo").glob("*.safetensors"))
    options = ["--jobs", str(cores()), *(["-k", keyword] if keyword else [])]
    life = Life(place, zoo, options, every=min(EVERY, max(1, count // 10)))
    if not life.killed.exists():
        life.run(1, until=count // 2)
        life.note_kill()
    code = life.run(2)
    return {
        "models": count,
        "certified": certified,
        "keyword": keyword,
        "workers": cores(),
        "exit_code": code,
        **life.told(),
    }


class Life:
    """A run over a zoo, which may end before its time."""

    def __init__(self, place: Path, zoo: list[Path], options: list[str], *, every: int) -> None:
        self._zoo, self._options, self._every = zoo, options, every
        self._out = place / "out"
        self._samples, self.killed = place / "samples.jsonl", place / "killed.json"

    def run(self, number: int, *, until: int | None = None) -> int:
        """Scan; after ``until`` models kill every process of it. Return the exit code."""
        process = scans.begun(self._zoo, self._out, *self._options, threads=None)
        known = done = self._done()
        try:
            while process.poll() is None:
                time.sleep(PAUSE)
                last, done = done, self._done()
                if done // self._every > last // self._every and done > known:
                    self._note(number, done, process.pid)
                if until is not None and done >= until:
                    break
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return process.wait()

    def note_kill(self) -> None:
        """Note what there is, to compare with what there will be."""
        found = scans.entries(self._out)
        kept = {
            "ledger": scans.whole_lines(self._out).decode(),
            "results": {entry.report: scans.fingerprint(self._out, entry) for entry in found},
        }
        atomic_write_text(self.killed, json.dumps(kept))

    def told(self) -> dict[str, Any]:
        """Return what there is of all models, how long each took, and the memory it took."""
        found, before = scans.entries(self._out), json.loads(self.killed.read_text())
        seconds = [entry.seconds for entry in found]
        at_kill = len(before["ledger"].splitlines())
        lives = [found[:at_kill], found[at_kill:]]
        log = self._out.with_suffix(".log").read_text(errors="replace")
        known = re.findall(r"(\d+) of them known from before", log)
        return {
            "killed_after": at_kill,
            "known": int(*known or [0]),
            **scans.faults(self._out, map(str, self._zoo)),
            "changed": list(self._changed(before)),
            "outcomes": scans.outcomes(found),
            "per_model": round(statistics.mean(seconds), 3),
            "slowest": max(seconds),
            "span": round(sum(end - start for start, end in map(scans.span, lives)), 1),
            "memory": [json.loads(line) for line in self._samples.read_text().splitlines()],
        }

    def _done(self) -> int:
        return scans.whole_lines(self._out).count(b"\n")

    def _note(self, life: int, done: int, driver: int) -> None:
        sample = {
            "life": life,
            "done": done,
            "driver": resident(driver),
            "workers": {str(pid): resident(pid) for pid in workers(driver)},
        }
        print(json.dumps(sample), flush=True)
        with self._samples.open("a") as file:
            file.write(json.dumps(sample) + "\n")

    def _changed(self, before: dict[str, Any]) -> Iterator[str]:
        """Yield what was there before the kill and is not any more as it was, byte by byte."""
        if not scans.whole_lines(self._out).startswith(before["ledger"].encode()):
            yield "the ledger"
        for entry in scans.entries(self._out):
            known = before["results"].get(entry.report)
            if known is not None and known != scans.fingerprint(self._out, entry):
                yield entry.model


def resident(pid: int) -> float:
    """Return the megabytes of memory that a process has; 0 for one that is gone."""
    with suppress(OSError):
        found = re.search(r"VmRSS:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
        return round(int(found[1]) / 1024, 1) if found else 0.0
    return 0.0


def workers(driver: int) -> list[int]:
    """Return the processes that scan for another one."""
    try:
        children = Path(f"/proc/{driver}/task/{driver}/children").read_text().split()
        return sorted(
            int(child)
            for child in children
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
        )
    except OSError:
        return []
