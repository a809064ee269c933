"""How long a scan takes to its first check, and how much memory a large encoder takes.

    python -m benchmarks.loading

*First check*: a fresh process scans a 90 MB ResNet-50 file at 224 pixels with the standard profile;
its time from start to the first line of the first check, less what ``import torch`` takes in a
fresh process, medians of several runs in turn. *Memory*: a fresh process loads a ViT-L (304 M
parameters), then runs a check that embeds eight images; the most resident memory beyond that after
the imports, in units of the weights in float32, and the same for a bare forward pass of the
library's own model. Writes docs/loading.json and docs/loading.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from encodercheck.cache import atomic_write_text

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import originals  # noqa: E402

RUNS = 5
FIRST_CHECK = """
import time
def check_first(encoder):
    print(encoder.embedding_dim)
    open("started", "w").write(str(time.time()))
"""
FIRST_CHECK_OPTIONS = ("--arch", "resnet50", "--checks", "check_first.py", "-k", "check_first")
MEMORY = """
import json, sys
import torch, timm
import encodercheck.scanning
def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
def reset():
    open("/proc/self/clear_refs", "w").write("5")
images = torch.rand(8, 3, 224, 224)
base = status("VmRSS")
reset()
"""
BARE = """
with torch.device("meta"):
    model = timm.create_model("vit_large_patch16_224", num_classes=0)
model = model.to_empty(device="cpu").eval()
with torch.no_grad():
    for tensor in model.state_dict().values():
        tensor.normal_(0, 0.02)
    model(images)
print(json.dumps({"bare": status("VmHWM") - base}))
"""
SCAN = """
state = encodercheck.scanning.prepare(sys.argv[1], arch="timm:vit_large_patch16_224")
loaded = status("VmHWM") - base
reset()
report = encodercheck.scanning.run(state, checks=["check_embeds.py"], keyword="check_embeds")
assert report.exit_code == 0, report
weights = report.to_dict()["memory"]["weights_bytes"]
print(json.dumps({"load": loaded, "scan": status("VmHWM") - base, "weights": weights}))
"""
CHECK = """
import torch
def check_embeds(encoder, images):
    with torch.no_grad():
        encoder(images[:8])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "loading")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "versions": {name: metadata.version(name) for name in ("torch", "timm")},
            "threads": torch.get_num_threads(),
            "first_check": first_check(Path(folder)),
            "memory": memory(Path(folder)),
        }
    atomic_write_text(options.out.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    atomic_write_text(options.out.with_suffix(".md"), page(found))
    print(page(found))


def first_check(folder: Path) -> dict[str, Any]:
    """Return the seconds to the first check, to torch's import, and their difference."""
    model = folder / "resnet50.safetensors"
    save_file(originals.full("torchvision:resnet50").state_dict(), model)
    (folder / "check_first.py").write_text(FIRST_CHECK)
    rows = []
    for _ in range(RUNS + 1):
        started = time.time()
        run(
            ["-m", "encodercheck", "scan", model.name, *FIRST_CHECK_OPTIONS],
            folder,
        )
        reached = float((folder / "started").read_text()) - started
        started = time.time()
        run(["-c", "import torch"], folder)
        rows.append((reached, time.time() - started))
    scans, imports = zip(*rows[1:], strict=True)
    return {
        "bytes": model.stat().st_size,
        "seconds": round(statistics.median(scans), 2),
        "import_torch": round(statistics.median(imports), 2),
        "beyond_import": round(statistics.median(s - i for s, i in rows[1:]), 2),
        "runs": RUNS,
    }


def memory(folder: Path) -> dict[str, Any]:
    """Return peaks beyond the imports, in bytes."""
    model = folder / "vit.safetensors"
    vit = originals.full("timm:vit_large_patch16_224", num_classes=0)
    save_file(vit.state_dict(), model)
    (folder / "check_embeds.py").write_text(CHECK)
    peaks: dict[str, Any] = json.loads(run(["-c", MEMORY + BARE], folder).splitlines()[-1])
    return peaks | json.loads(run(["-c", MEMORY + SCAN, model.name], folder).splitlines()[-1])


def run(arguments: list[str], folder: Path) -> str:
    """Run Python in a folder and return what it prints."""
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(f"{arguments}: {ended.stderr}")
    return ended.stdout


def page(found: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    first, peaks = found["first_check"], found["memory"]
    weights = peaks["weights"]
    rows = (
        ("the library's own model, one forward pass of 8 images", "bare"),
        ("`load`, and the scan's images", "load"),
        ("a scan whose check embeds 8 images", "scan"),
    )
    return f"""# Loading: time and memory

Made by `python -m benchmarks.loading` with torch {found["versions"]["torch"]} on
{found["threads"]} CPU threads.

A scan of a ResNet-50 file of {first["bytes"] / 1e6:.0f} MB reaches its first check after
{first["seconds"]} s, of which `import torch` takes {first["import_torch"]} s:
{first["beyond_import"]} s beyond it (medians of {first["runs"]} runs; limit 3 s).

Memory for a ViT-L of {weights / 1e9:.2f} GB in float32, beyond that of the imports:

| | peak, GB | in units of the weights |
| --- | --- | --- |
""" + "".join(
        f"| {what} | {peaks[key] / 1e9:.2f} | {peaks[key] / weights:.2f} |\n" for what, key in rows
    )


if __name__ == "__main__":
    main()
