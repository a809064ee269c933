"""How fast, how flat in memory, how hard to kill and at what cost a zoo of models is scanned.

    python -m benchmarks.zoo_scale [ways] [endure] [node] [classes]
                                   [--models 50] [--endure 1000] [--node 20]

Makes models of a fixture's size: certified clean ones, as far as they are in the cache already, and
variations of one of them, from seeds, with the same metadata. Measures the parts that are named, or
all of them:

- ways: models a minute by one process, by processes that share nothing, by ``--jobs`` and by
  ``--cluster local``, with a worker for each core and a thread for each worker; what a scheduler
  adds to a model; what each takes to begin;
- endure: many models by ``--jobs``, killed by ``kill -9`` in the middle and begun once more:
  whether each has one row and one report, as before the kill, and the memory of each process;
- node: a Ray cluster of two machines, one of which is killed in the middle;
- classes: what the passes of a scan would take on larger models, from passes that are timed.

What has been measured of a part lies in ``--place`` until the part is done, and is taken up when
this is called again. Rows go to docs/zoo.json, each part's when it is done, and tables between the
marks of docs/zoo.md, with what the scan of a hub would take: ``--hub-models``, ``--price`` and
``--shares`` are its inputs. With the whole suite a model takes a core about 10 s.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.zoo_scale import classes, endure, node, pages, ways
from encodercheck.cache import atomic_write_text, cache_dir

ROOT = Path(__file__).parents[2]
ROWS, PAGE = ROOT / "docs" / "zoo.json", ROOT / "docs" / "zoo.md"
PARTS = {
    "ways": ways.measure,
    "endure": endure.measure,
    "node": node.measure,
    "classes": classes.measure,
}
BEGIN, END = "<!-- zoo_scale:begin -->", "<!-- zoo_scale:end -->"
HUB_MODELS = 100_000
# Of an hour of a worker, in any currency.
PRICE = 0.10
# Of a hub's models, by the class whose seconds were measured; a guess.
SHARES = ("small=0.2", "RN50=0.3", "ViT-B=0.3", "ViT-L=0.2")
Found = dict[str, Any]


def main() -> None:
    options = _options()
    if not options.page_only:
        for part in options.parts or PARTS:
            measure, count = PARTS[part], getattr(options, part, 1)
            place = options.place / f"{part}-{count}-{options.keyword or 'all'}"
            found = measure(place, count, keyword=options.keyword)
            _write(read() | {part: found})
            if not options.keep:
                shutil.rmtree(place)
    found = read()
    if "classes" in found:
        prices = options.hub_models, options.price, options.shares
        _write(found | {"hub": estimate(found["classes"]["rows"], *prices)})
    print(pages.tables(read()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.zoo_scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all where none is named")
    parser.add_argument("--models", dest="ways", type=int, default=50, help="for ways")
    parser.add_argument("--endure", type=int, default=1000, metavar="MODELS", help="for endure")
    parser.add_argument("--node", type=int, default=20, metavar="MODELS", help="for node")
    parser.add_argument("--keyword", default="", help="measure with these checks alone")
    parser.add_argument("--place", type=Path, default=cache_dir() / "zoo_scale")
    parser.add_argument("--keep", action="store_true", help="leave there what was scanned")
    parser.add_argument("--hub-models", type=int, default=HUB_MODELS)
    parser.add_argument("--price", type=float, default=PRICE, help="of an hour of a worker")
    parser.add_argument("--shares", nargs="*", default=list(SHARES), metavar="CLASS=SHARE")
    parser.add_argument("--page-only", action="store_true", help="write the page from the rows")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: choose of {', '.join(PARTS)}")
    return options


def read() -> Found:
    """Return what has been measured of each part."""
    kept: Found = json.loads(ROWS.read_text()) if ROWS.exists() else {}
    return {part: kept[part] for part in (*PARTS, "hub") if part in kept}


def _write(found: Found) -> None:
    """Write the rows, and the tables into the page."""
    atomic_write_text(ROWS, json.dumps(found, indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    atomic_write_text(PAGE, f"{before}{BEGIN}\n{pages.tables(found)}{END}{after}")


def estimate(rows: list[Found], count: int, price: float, shares: list[str]) -> Found:
    """Return hours and cost of a hub: the sum over its classes of count x share x seconds."""
    seconds = {row["class"]: row["seconds"] for row in rows}
    parts = []
    for text in shares:
        name, _, share = text.partition("=")
        if name not in seconds:
            raise SystemExit(f"{text}: no class of {', '.join(seconds)}")
        hours = count * float(share) * seconds[name] / 3600
        parts.append({"class": name, "share": float(share), "hours": round(hours, 1)})
    hours = sum(part["hours"] for part in parts)
    return {
        "models": count,
        "price": price,
        "classes": parts,
        "hours": round(hours, 1),
        "cost": round(hours * price, 2),
    }


if __name__ == "__main__":
    main()
