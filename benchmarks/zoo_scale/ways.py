"""How fast several workers are, against one process that computes as each of them does."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.zoo_scale import scans
from benchmarks.zoo_scale.making import make
from encodercheck.cache import atomic_write_text
from encodercheck.verify.verifying import cores


@dataclass(frozen=True)
class Way:
    """A way to scan a zoo on so many ``cores``: by ``workers``, in ``runs`` of their own.

    ``threads`` are those of a process that is told nothing; None for as many as it takes.
    """

    name: str
    cores: int = 1
    workers: int = 1
    options: tuple[str, ...] = ()
    threads: int | None = None
    runs: int = 1


BASE, DEFAULT = "one process, one thread", "one process, as it comes"


def ways() -> list[Way]:
    """Return the ways, in the order in which they are measured.

    Several workers have one thread each. What runs that know nothing of each other reach is what
    the machine has to give.
    """
    n = cores()
    return [
        Way(BASE, threads=1),
        Way(f"{DEFAULT} ({n} threads)", cores=n),
        Way(f"{n} processes that share nothing", cores=n, workers=n, threads=1, runs=n),
        Way(f"--jobs {n}", cores=n, workers=n, options=("--jobs", str(n))),
        Way(f"--cluster local, {n} workers", cores=n, workers=n, options=("--cluster", "local")),
    ]


def measure(place: Path, count: int, *, keyword: str) -> dict[str, Any]:
    """Return a row for each way; a turn that is in ``place`` already is not measured again.

    Each way has a turn on the way there and one on the way back: a machine that is shared gets
    faster or slower meanwhile, and that falls on all of them alike.
    """
    certified = make(place / "zoo", count)
    kept = place / "turns.json"
    turns: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    for way in [*ways(), *reversed(ways())][len(turns) :]:
        turns.append(scanned(place, way, keyword))
        print(json.dumps(turns[-1]), flush=True)
        atomic_write_text(kept, json.dumps(turns))
    return {
        "models": count,
        "certified": certified,
        "keyword": keyword,
        "torch": torch.__version__,
        "cores": cores(),
        "rows": [together([t for t in turns if t["way"] == way.name]) for way in ways()],
    }


def together(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of a way: what is the same in its turns, their sums and their means."""
    models = sum(turn["models"] for turn in turns)
    means = {
        name: round(sum(turn[name] * turn["models"] for turn in turns) / models, 4)
        for name in ("startup", "per_model", "overhead")
    }
    return {
        **{name: turns[0][name] for name in ("way", "cores", "workers")},
        "models": models,
        "span": round(sum(turn["span"] for turn in turns), 3),
        **means,
        "rates": [round(turn["models"] / turn["span"] * 60, 2) for turn in turns],
        "outcomes": dict(sum((Counter(turn["outcomes"]) for turn in turns), Counter())),
        "exit_code": max(turn["exit_code"] for turn in turns),
    }


def scanned(place: Path, way: Way, keyword: str) -> dict[str, Any]:
    """Scan the zoo; return when what happened, in seconds."""
    zoo = sorted((place / "zoo").glob("*.safetensors"))
    outs = [place / f"out-{number}" for number in range(way.runs)]
    for out in outs:
        shutil.rmtree(out, ignore_errors=True)
    options = [*way.options, *(["-k", keyword] if keyword else [])]
    started = time.time()
    runs = [
        scans.begun(zoo[number :: way.runs], out, *options, threads=way.threads)
        for number, out in enumerate(outs)
    ]
    codes = [run.wait() for run in runs]
    seconds = time.time() - started
    found = scans.entries(*outs)
    if not found:
        raise SystemExit(f"{way.name}: {outs[0].with_suffix('.log').read_text()[-2000:]}")
    return {"way": way.name, **told(way, found, started), "seconds": round(seconds, 2)} | {
        "outcomes": scans.outcomes(found),
        "exit_code": max(codes),
    }


def told(way: Way, found: list[scans.Entry], started: float) -> dict[str, float]:
    """Return what a way took: until the first model was begun, for all of them, and for each.

    The overhead is what workers did beside the scans' own seconds, from the first begun to the
    last done; it includes the time when some had none left.
    """
    first, last = scans.span(found)
    within = sum(entry.seconds for entry in found)
    return {
        "cores": way.cores,
        "workers": way.workers,
        "models": len(found),
        "startup": round(first - started, 2),
        "span": round(last - first, 3),
        "per_model": round(within / len(found), 4),
        "overhead": round(((last - first) * way.workers - within) / len(found), 4),
    }
