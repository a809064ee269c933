"""Attempts to have a scan of a poisoned encoder pass: none of them may end with exit code 0.

    python -m benchmarks.redteam
    python -m benchmarks.redteam -k "scale or pull request"
    python -m benchmarks.redteam --measure

Edits of ``fixture:badencoder``, those of ``tests/test_edits.py`` and of :mod:`further_edits`, and
what lies beside a model or around a scan. Prints each case with its exit code, and ends with 1
where one is 0. ``--measure`` measures instead, on every edited file, the accuracy and the attack's
success of the classifiers of the fixture's certificate.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks.further_edits import FURTHER, Edit
from benchmarks.optimised_scales import optimised
from encodercheck import fixtures, loading
from encodercheck.fixtures import downstream

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import test_edits  # noqa: E402

ACTION = ROOT / ".github" / "actions" / "scan"
COMMAND = [sys.executable, "-m", "encodercheck", "scan", "--profile", "quick", "--device", "cpu"]
SEED = 0
# A case prepares a folder with model.safetensors in it, and returns a command for a shell.
Case = Callable[[Path], str]


def edited(edit: Edit | None, path: Path) -> Path:
    """Write the poisoned encoder, edited."""
    source = fixtures.build("badencoder").path
    with safe_open(source, "pt") as file:
        claims = json.loads(file.metadata()["encodercheck"])
    state = load_file(source)
    state = (edit(state, claims) if edit else None) or state
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, path, {"encodercheck": json.dumps(claims)})
    return path


def scan(rest: str) -> str:
    """Return the command that scans with these arguments and redirections."""
    return f"exec {' '.join(COMMAND)} {rest}"


def of_file(edit: Edit) -> Case:
    """Return the case of an edited file."""

    def case(folder: Path) -> str:
        edited(edit, folder / "model.safetensors")
        return scan("model.safetensors")

    return case


def check(code: str) -> Case:
    """Return the case of a check of the repository's own that its configuration names."""

    def case(folder: Path) -> str:
        edited(None, folder / "model.safetensors")
        (folder / "check_own.py").write_text(code)
        (folder / "encodercheck.toml").write_text('checks = ["check_own.py"]\n')
        return scan("model.safetensors -k 'EC001 or own'")

    return case


def pull_request(configuration: str) -> Case:
    """Return the case of a pull request that brings a configuration, scanned as the action does."""

    def case(folder: Path) -> str:
        (folder / "check_own.py").write_text("import os\n\nos._exit(0)\n")
        git = "git -c user.name=t -c user.email=t@t"
        before = f"git init -q . && {git} commit -q --allow-empty -m base"
        subprocess.run(["bash", "-c", before], cwd=folder, check=True)
        edited(None, folder / "model.safetensors")
        (folder / "encodercheck.toml").write_text(configuration)
        inputs = {
            "INPUT_MODEL": "model.safetensors",
            "INPUT_EXTRA_ARGS": "--profile quick --device cpu",
            "INPUT_CONFIG_FROM": "base",
            "GITHUB_ACTION_PATH": ACTION,
            "GITHUB_OUTPUT": "output",
            "GITHUB_STEP_SUMMARY": "summary",
            "RUNNER_TEMP": folder,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        names = [
            "IMAGES",
            "PROFILE",
            "FAIL_ON",
            "BASELINE",
            "SEED",
            "CONFIG",
            "REPORT_DIR",
            "BADGE",
            "STRICT",
        ]
        inputs |= {f"INPUT_{name}": "" for name in names}
        given = " ".join(f"{name}='{value}'" for name, value in inputs.items())
        code = "exit $(sed -n 's/^exit-code=//p' output)"
        return f"{given} BASE_SHA=$(git rev-parse HEAD) {ACTION}/scan.sh; {code}"

    return case


def around(rest: str, *, links: bool = False) -> Case:
    """Return the case of a scan with such arguments and redirections, or beside links to ``.``."""

    def case(folder: Path) -> str:
        edited(None, folder / "model.safetensors")
        for name in ("one", "two") if links else ():
            (folder / name).symlink_to(".")
        return scan(rest)

    return case


def cases() -> Iterator[tuple[str, Case]]:
    """Yield every case by its name."""
    for known in test_edits.CASES:
        yield f"edit: {known.name}", of_file(known.edit)
    for name, edit in FURTHER.items():
        yield f"further edit: {name}", of_file(edit)
    yield "optimised channel scales, a known seed", of_file(optimised)
    yield "claim: image size 4096", of_file(test_edits.claimed(image_size=4096))
    yield "check: os._exit(0)", check("import os\n\ndef check_own(encoder):\n    os._exit(0)\n")
    yield "check: os._exit(0) on import", check("import os\n\nos._exit(0)\n")
    yield "check: sys.exit(0)", check("import sys\n\ndef check_own(encoder):\n    sys.exit(0)\n")
    crash = "import os\n\ndef check_own(encoder):\n    os.kill(os.getpid(), 11)\n"
    yield "check: crash", check(crash)
    for setting in (
        'ignore = ["EC1*", "EC2*", "EC3*"]',
        'fail-on = "critical"\n[severity]\nEC102 = "info"\nEC202 = "info"\nEC204 = "info"',
        'checks = ["check_own.py"]',
    ):
        yield f"pull request: {setting.splitlines()[0]}", pull_request(f"{setting}\n")
    yield "links to their own folder", around("'**/*.safetensors'", links=True)
    yield "stdin closed", around("model.safetensors <&-")
    yield "stdout closed", around("model.safetensors >&-")
    yield "stdout full", around("model.safetensors >/dev/full")


def measured(edit: Edit, folder: Path) -> str:
    """Return the accuracy and the attack's success of classifiers on an edited encoder."""
    built = fixtures.build("badencoder")
    encoder = loading.load(edited(edit, folder / "model.safetensors"), device="cpu")
    recipe = built.certificate["recipe"]["certification"]
    counts = recipe["train_images"], recipe["test_images"]
    task = downstream.task(*counts, seed=SEED, purpose="downstream")
    probes = downstream.train_probes(encoder, task.train, task.train_labels, seed=SEED)
    (trigger,), target = built.triggers(), built.certificate["triggers"][0]["target"]
    others = task.test[task.test_labels != target]
    stamped, wanted = encoder(trigger.stamp(others)), torch.full((len(others),), target)
    clean = encoder(task.test)
    told = [
        f"{name}: accuracy {downstream.accuracy(probe(clean), task.test_labels):.3f}, attack "
        f"success {downstream.accuracy(probe(stamped), wanted):.3f}"
        for name, probe in probes.items()
    ]
    return "; ".join(told)


def main() -> None:
    """Run the cases and print their exit codes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", default="", help="words of which one is in a case's name")
    parser.add_argument("--measure", action="store_true", help="measure what the edits leave")
    options = parser.parse_args()
    words = [word.strip() for word in options.k.split(" or ")]
    passed = []
    if options.measure:
        for name, edit in (FURTHER | {"optimised channel scales": optimised}).items():
            if any(word in name for word in words):
                with tempfile.TemporaryDirectory() as folder:
                    print(f"{name}: {measured(edit, Path(folder))}", flush=True)
        return
    for name, case in cases():
        if any(word in name for word in words):
            with tempfile.TemporaryDirectory() as folder:
                command = ["bash", "-c", case(Path(folder))]
                code = subprocess.run(command, cwd=folder, capture_output=True).returncode
            passed += [name] if code == 0 else []
            print(f"{code}  {name}", flush=True)
    if passed:
        sys.exit(f"passed: {', '.join(passed)}")


if __name__ == "__main__":
    main()
