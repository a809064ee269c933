"""How fast, how flat in memory, and at what cost a zoo of models is scanned.

    python -m benchmarks.zoo_scale --models 50

Makes models of a fixture's size: certified clean ones, as far as they are in the cache already, and
variations of a small one, from seeds, with the same metadata. Measures, in one run: seconds by one
process, by ``--jobs 2`` and by ``--cluster local`` with two workers, and their ratios; what a
scheduler adds to a model, against the seconds of the quick profile; the resident memory of one
process after every few models. Rows go to docs/zoo.json, and the tables between the marks of
docs/zoo.md, with what the scan of a hub would take: ``--hub-models``, ``--price`` and ``--classes``
are its inputs.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from encodercheck.cache import atomic_write_text, cache_dir
from encodercheck.weights.header import read_header

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import models  # noqa: E402

ROWS, PAGE = ROOT / "docs" / "zoo.json", ROOT / "docs" / "zoo.md"
BEGIN, END = "<!-- zoo_scale:begin -->", "<!-- zoo_scale:end -->"
WORKERS = 2
HUB_MODELS = 100_000
# Of a machine with two cores, or a GPU; in any currency.
PRICE = 0.10
# Share of a hub, and seconds of the quick profile: name=share:seconds. The first is measured here.
CLASSES = ("small=0.2", "ViT-B/RN50=0.6:90", "ViT-L and larger=0.2:300")
MEMORY = """
import json, re, sys
from pathlib import Path
from encodercheck.zoo import keys, running
from encodercheck.zoo.judging import Judge
from encodercheck.zoo.measuring import Work
def resident():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\\s*(\\d+)", status)[1]) / 1024
class Watch:
    done, found = 0, []
    def started(self, model): pass
    def finished(self, row, report):
        self.done += 1
        if self.done % int(sys.argv[2]) == 0:
            self.found.append([self.done, round(resident(), 1)])
names = sorted(map(str, Path(sys.argv[1]).glob("*.safetensors")))
settings = keys.Settings(keyword=sys.argv[3] or None, profile="quick", device="cpu")
watch = Watch()
run = running.Run(names, Work(settings, keys.ground(settings)), Judge(), watch,
                  artifacts=[Path(sys.argv[1]) / "artifacts"] * len(names))
run.go(running.here)
print(json.dumps(watch.found))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--memory-models", type=int, default=200)
    parser.add_argument("--keyword", default="", help="measure with these checks alone")
    parser.add_argument("--hub-models", type=int, default=HUB_MODELS)
    parser.add_argument("--price", type=float, default=PRICE, help="of an hour of a machine")
    parser.add_argument("--classes", nargs="*", default=list(CLASSES))
    parser.add_argument("--no-cluster", action="store_true")
    parser.add_argument("--page-only", action="store_true", help="write the page from the rows")
    options = parser.parse_args()
    if not options.page_only:
        measured = measure(options)
        atomic_write_text(ROWS, json.dumps(measured, indent=1) + "\n")
    found = json.loads(ROWS.read_text())
    found["hub"] = estimate(found, options.hub_models, options.price, options.classes)
    atomic_write_text(ROWS, json.dumps(found, indent=1) + "\n")
    if PAGE.exists():
        atomic_write_text(PAGE, replaced(PAGE.read_text(), table(found)))
    print(table(found))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return what is measured: a row for each way to scan, and the memory over the models."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        certified = make(folder / "zoo", options.models)
        ways = {"one process": [], f"--jobs {WORKERS}": ["--jobs", str(WORKERS)]}
        if not options.no_cluster:
            ways[f"--cluster local, {WORKERS} workers"] = ["--cluster", "local"]
        rows = [
            {"way": way, **scanned(folder, way, extra, options.keyword)}
            for way, extra in ways.items()
        ]
        base = rows[0]["seconds"]
        for row in rows:
            row["ratio"] = round(base / row["seconds"], 2)
        make(folder / "many", options.memory_models, certified=False)
        return {
            "models": options.models,
            "certified": certified,
            "keyword": options.keyword,
            "torch": torch.__version__,
            "cores": WORKERS,
            "rows": rows,
            "memory": memory(folder / "many", options.memory_models),
        }


def make(folder: Path, count: int, *, certified: bool = True) -> int:
    """Write ``count`` models, and return how many of them are certified fixtures."""
    folder.mkdir()
    found = clean() if certified else []
    base = load_file(found[0]) if found else models.state()
    about = read_header(found[0]).metadata if found else None
    for number in range(count):
        path = folder / f"m{number:05}.safetensors"
        if number < len(found):
            path.write_bytes(found[number].read_bytes())
        elif about is None:
            models.write(path, varied(base, number))
        else:
            save_file(varied(base, number), path, about)
    return min(len(found), count)


def clean(most: int = 4) -> list[Path]:
    """Return certified clean encoders that are in the cache; none is built for this."""
    paths = sorted((cache_dir() / "fixtures").glob("clean-*/model.safetensors"))
    return [path for path in paths if path.with_name("certificate.json").exists()][:most]


def varied(tensors: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Return weights that are a little different, by a seed."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor * (1 + 0.01 * torch.randn(tensor.shape, generator=generator))
        if tensor.is_floating_point() and tensor.ndim > 1
        else tensor.clone()
        for name, tensor in tensors.items()
    }


def scanned(folder: Path, way: str, extra: list[str], keyword: str) -> dict[str, Any]:
    """Scan the zoo in a fresh process; return its seconds, and what a model took of them."""
    out = folder / re.sub(r"\W+", "-", way)
    command = [sys.executable, "-m", "encodercheck", "scan", str(folder / "zoo"), "--no-config"]
    command += ["--profile", "quick", "--device", "cpu", "--out", str(out), *extra]
    command += ["-k", keyword] if keyword else []
    started = time.monotonic()
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    lines = (out / "ledger.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    if ended.returncode not in (0, 1) or any(entry["exit_code"] == 2 for entry in entries):
        print(ended.stdout[-2000:], ended.stderr[-2000:], file=sys.stderr)
    finished = sorted(entry["finished"] for entry in entries)
    at_once = 1 if not extra else WORKERS
    within = statistics.mean(entry["seconds"] for entry in entries)
    # From the first result on: what it takes to begin is paid once.
    first, last = (datetime.fromisoformat(finished[i]) for i in (0, -1))
    steady = (last - first).total_seconds() / max(1, len(entries) - 1)
    return {
        "seconds": round(seconds, 2),
        "models": len(entries),
        "per_model": round(within, 3),
        "steady": round(steady, 3),
        "overhead": round(max(0.0, steady * at_once - within), 3),
        "exit_code": ended.returncode,
    }


def memory(folder: Path, count: int, keyword: str = "EC001") -> list[list[float]]:
    """Return the resident megabytes of one process after every twentieth part of the models."""
    command = [sys.executable, "-c", MEMORY, str(folder), str(max(1, count // 20)), keyword]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found: list[list[float]] = json.loads(ended.stdout.splitlines()[-1])
    return found


def estimate(found: dict[str, Any], count: int, price: float, classes: list[str]) -> dict[str, Any]:
    """Return hours and cost of a hub: the sum over its classes of count x share x seconds."""
    small = found["rows"][0]["per_model"]
    parts = []
    for text in classes:
        name, _, rest = text.partition("=")
        share, _, seconds = rest.partition(":")
        each = float(seconds) if seconds else small
        hours = count * float(share) * each / 3600
        parts.append(
            {
                "class": name,
                "share": float(share),
                "seconds": round(each, 2),
                "measured": not seconds,
                "hours": round(hours, 1),
            }
        )
    hours = sum(part["hours"] for part in parts)
    return {
        "models": count,
        "price": price,
        "classes": parts,
        "hours": round(hours, 1),
        "cost": round(hours * price, 2),
    }


def table(found: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    rows = "".join(
        f"| {row['way']} | {row['seconds']:.1f} | {row['models'] / row['seconds'] * 60:.1f} "
        f"| {row['ratio']:.2f} | {row['per_model']:.2f} | {row['overhead']:.2f} |\n"
        for row in found["rows"]
    )
    resident = found["memory"]
    half = [megabytes for _, megabytes in resident[len(resident) // 2 :]]
    hub = found["hub"]
    parts = "".join(
        f"| {part['class']} | {part['share']:.0%} | {part['seconds']:g} "
        f"{'(measured)' if part['measured'] else '(assumed)'} | {part['hours']:,.0f} |\n"
        for part in hub["classes"]
    )
    sizes = f"{found['certified']} certified, the rest variations of one"
    checks = f"the checks `-k {found['keyword']}`" if found["keyword"] else "the whole suite"
    return f"""{found["models"]} models of a fixture's size ({sizes}), profile
quick, {checks}, {found["cores"]} cores:

| | seconds in all | models a minute | times one process | s a model | overhead, s a model |
| --- | --- | --- | --- | --- | --- |
{rows}
*Overhead* is what passes between results beyond the scans' own seconds, times the workers.

Resident memory of one process over {resident[-1][0]} models (`-k EC001`): {resident[0][1]:.0f} MB
after {resident[0][0]}, {resident[-1][1]:.0f} MB in the end; over the second half it moved by
{max(half) - min(half):.1f} MB.

A hub of {hub["models"]:,} vision encoders, at {hub["price"]:g} an hour of a worker:

| class | share | seconds a model | hours of a worker |
| --- | --- | --- | --- |
{parts}| all | | | {hub["hours"]:,.0f} |

which costs {hub["cost"]:,.0f}. hours = models x sum(share x seconds) / 3600, cost = hours x price;
`--hub-models`, `--classes NAME=SHARE[:SECONDS]` and `--price` put in other numbers.
"""


def replaced(page: str, text: str) -> str:
    """Return the page with the tables between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{text}{END}{after}"


if __name__ == "__main__":
    main()
