"""A Ray cluster of two machines, one of which goes away in the middle."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.zoo_scale import scans
from benchmarks.zoo_scale.making import make
from encodercheck.zoo import cluster, keys
from encodercheck.zoo.claims import Claims
from encodercheck.zoo.cluster import Needs
from encodercheck.zoo.judging import Judge
from encodercheck.zoo.keeping import Keeper
from encodercheck.zoo.measuring import Work
from encodercheck.zoo.running import Run


def measure(place: Path, count: int, *, keyword: str) -> dict[str, Any]:
    """Scan; after half of the models kill a machine. Return what there is of all models then."""
    from clusters import Killer, two_nodes

    make(place / "zoo", count)
    names = sorted(map(str, (place / "zoo").glob("*.safetensors")))
    out = place / "out"
    shutil.rmtree(out, ignore_errors=True)
    settings = keys.Settings(keyword=keyword or None, profile="quick", device="cpu")
    with two_nodes() as kill:
        work = Work(settings, keys.ground(settings))
        watcher, keeper = Killer(kill, after=count // 2), Keeper(out)
        claims = Claims(out, work.ground)
        run = Run(names, work, Judge(), watcher, keeper=keeper, claims=claims)
        started = time.monotonic()
        run.go(cluster.cluster("auto", Needs(cpus=1)))
        seconds = time.monotonic() - started
    if not watcher.killed:
        raise SystemExit("no machine was killed")
    return {
        "models": count,
        "keyword": keyword,
        "killed_after": watcher.after,
        **scans.faults(out, names),
        "outcomes": scans.outcomes(scans.entries(out)),
        "seconds": round(seconds, 1),
        "exit_code": run.exit_code,
    }
