"""Every name of torchvision, timm and open_clip: is it found again by its tensors alone?

    python -m benchmarks.names

writes for each name a file with the tensors of the library's own default model (classifier and text
tower included, no data) and asks for its architecture. *Identified*: the answer is the name or
another of the same function. *Ambiguous*: the name, or another of the same function, is among the
candidates. *Wrong*: the answer is another function, or the name is not among the candidates.
*Missed*: no answer. Writes docs/identification.json and docs/identification.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from importlib import metadata
from pathlib import Path
from typing import Any

from encodercheck.cache import atomic_write_text
from encodercheck.errors import AmbiguousArchitecture, ConfigError, LoadError
from encodercheck.planning import plan
from encodercheck.weights import index
from encodercheck.weights.build import NAMES
from encodercheck.weights.index_build import DISTRIBUTIONS
from encodercheck.weights.metadata import LIBRARIES

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import hostile  # noqa: E402
import originals  # noqa: E402

OUTCOMES = ("identified", "ambiguous", "wrong", "missed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "identification")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for library in LIBRARIES:
            for name in NAMES[library]():
                if options.only in name:
                    rows.append(row(f"{library}:{name}", Path(folder) / "model.safetensors"))
                    if rows[-1]["outcome"] in ("wrong", "missed") or len(rows) % 100 == 0:
                        print(len(rows), json.dumps(rows[-1]), flush=True)
    versions = {name: metadata.version(DISTRIBUTIONS[name]) for name in LIBRARIES}
    found = {"versions": versions, "index": index.load().versions, "rows": rows}
    atomic_write_text(options.out.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    atomic_write_text(options.out.with_suffix(".md"), page(found))


def row(arch: str, path: Path) -> dict[str, Any]:
    """Return what is found for one name."""
    hostile.shapes_only(path, originals.shapes(arch))
    started = time.monotonic()
    candidates: tuple[str, ...] = ()
    answer = message = ""
    try:
        answer = plan(path).architecture
        outcome = "identified" if function(answer) == function(arch) else "wrong"
    except AmbiguousArchitecture as error:
        candidates = error.candidates
        listed = {function(candidate) for candidate in candidates}
        outcome = "ambiguous" if function(arch) in listed else "wrong"
    except (LoadError, ConfigError) as error:
        outcome, message = "missed", str(error).replace(str(path), path.name)
    return {
        "arch": arch,
        "outcome": outcome,
        "answer": answer,
        "candidates": list(candidates),
        "message": message,
        "seconds": round(time.monotonic() - started, 3),
    }


def function(arch: str) -> tuple[int, int]:
    """Return the family and function that the index has for a name; options are of the same."""
    return FUNCTIONS[arch.partition(",")[0]]


FUNCTIONS = {entry.arch: (entry.family, entry.function) for entry in index.load().entries()}


def page(found: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    rows = found["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    seconds = sorted(row["seconds"] for row in rows)
    lines = [
        "# Identification by tensors alone",
        "",
        f"Made by `python -m benchmarks.names` with {versions}: every name, with its library's own "
        "default model (classifier and text tower included).",
        "",
        "| library | names | " + " | ".join(OUTCOMES) + " |",
        "| --- " * (2 + len(OUTCOMES)) + "|",
    ]
    by_library: dict[str, Counter[str]] = defaultdict(Counter)
    for one in rows:
        by_library[one["arch"].partition(":")[0]][one["outcome"]] += 1
    for library, counts in [*by_library.items(), ("all", Counter(r["outcome"] for r in rows))]:
        cells = " | ".join(str(counts[outcome]) for outcome in OUTCOMES)
        lines.append(f"| {library} | {counts.total()} | {cells} |")
    lines += [
        "",
        f"An answer took {seconds[len(seconds) // 2]:.2f} s (median), {seconds[-1]:.1f} s at most, "
        "the build that verifies it included.",
        "",
        "## Ambiguous: same tensors, different features",
        "",
    ]
    groups = sorted({tuple(r["candidates"]) for r in rows if r["outcome"] == "ambiguous"})
    lines += [f"- {' · '.join(group)}" for group in groups]
    for outcome in ("wrong", "missed"):
        bad = [r for r in rows if r["outcome"] == outcome]
        if bad:
            lines += ["", f"## {outcome.capitalize()}", ""]
            lines += [f"- {r['arch']}: {r['answer'] or r['message']}" for r in bad]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
