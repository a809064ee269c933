"""Mutation testing: every deliberate defect of the checks must turn a test red.

    python -m benchmarks.mutations
    python -m benchmarks.mutations -k gradient

copies the package as a wheel would install it, and the tests beside it; sees that the tests are
green; then makes one edit of :mod:`benchmarks.defects` at a time and runs the tests that are to
notice. Red is a failed or crashed test: a run that collects nothing, or breaks down, is not.
Writes docs/mutations.json and docs/mutations.md after each defect; a later run skips those that
neither the source nor the tests have changed since. Exits with 1 where a defect survives.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.defects import DEFECTS, Defect
from encodercheck.cache import atomic_write_text, content_hash

ROOT = Path(__file__).parents[1]
# As pyproject.toml's package-dir has it.
PACKAGES = {
    "encodercheck": "encodercheck",
    "checks": "encodercheck/checks",
    "fixtures": "encodercheck/fixtures",
}
BESIDE = ("tests", "benchmarks")
# An editable install of the same package lies on the path as well: what is imported from anywhere
# but the copy would be tested unedited.
LAUNCH = """
import sys
from importlib.util import find_spec
import pytest
site, *arguments = sys.argv[1:]
status = pytest.main(arguments)
places = [find_spec(name).origin for name in ("encodercheck", "encodercheck.checks",
    "encodercheck.fixtures")]
places += [module.__file__ for name, module in list(sys.modules.items())
    if name.partition(".")[0] == "encodercheck"]
elsewhere = [place for place in places if not str(place).startswith(site)]
if elsewhere:
    print("not of the copy:", *elsewhere)
sys.exit(70 if elsewhere else status)
"""
# What would choose other tests, plugins or code.
LEAKING = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTHONPATH")

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """How a run of some tests ended: pytest's exit status, and which tests failed or crashed."""

    status: int
    failed: tuple[str, ...]
    seconds: float
    output: str

    @property
    def green(self) -> bool:
        """Whether all of them passed."""
        return self.status == 0

    @property
    def red(self) -> bool:
        """Whether a test noticed something: not where nothing ran, or pytest broke down."""
        return self.status == 1 and bool(self.failed)


@dataclass(frozen=True)
class Copy:
    """A copy of the package in ``folder/site``, and of the tests in ``folder/work``."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Copy:
        """Copy what is in the working tree."""
        copy = cls(folder.resolve())
        without = shutil.ignore_patterns("__pycache__", ".hypothesis")
        for own, installed in PACKAGES.items():
            shutil.copytree(ROOT / own, copy.site / installed, ignore=without)
        for name in BESIDE:
            shutil.copytree(ROOT / name, copy.work / name, ignore=without)
        shutil.copy(ROOT / "pyproject.toml", copy.work)
        return copy

    @property
    def site(self) -> Path:
        """Where the package lies."""
        return self.folder / "site"

    @property
    def work(self) -> Path:
        """Where the tests lie, without a package beside them that would be imported instead."""
        return self.folder / "work"

    def place(self, file: str) -> Path:
        """Return where a file of the working tree lies in the package."""
        own, _, rest = file.partition("/")
        return self.site / PACKAGES[own] / rest

    @contextmanager
    def mutated(self, defect: Defect) -> Iterator[None]:
        """Have the defect in the package, until the block ends."""
        path = self.place(defect.file)
        source = path.read_text()
        path.write_text(edited(source, defect))
        try:
            yield
        finally:
            path.write_text(source)

    def run(self, tests: Iterable[str]) -> Run:
        """Run tests on the package as it is."""
        report = self.folder / "report.xml"
        report.unlink(missing_ok=True)
        chosen = [f"tests/{test}" for test in tests]
        options = ["-x", "-q", "-n0", "-p", "no:cacheprovider", f"--junitxml={report}", *chosen]
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=self.folder) as cache:
            ended = subprocess.run(
                [sys.executable, "-c", LAUNCH, str(self.site), *options],
                cwd=self.work,
                env=self._environment(cache),
                capture_output=True,
                text=True,
                check=False,
            )
        seconds = time.monotonic() - started
        output = ended.stdout + ended.stderr
        return Run(ended.returncode, tuple(failures(report)), seconds, output)

    def judge(self, defect: Defect) -> Run:
        """Run the tests that are to notice a defect."""
        with self.mutated(defect):
            return self.run(defect.tests)

    def _environment(self, cache: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in LEAKING}
        return kept | {
            "PYTHONPATH": str(self.site),
            # An edit within a second that keeps the length would be taken for the file compiled.
            "PYTHONDONTWRITEBYTECODE": "1",
            # What a defect computes must not reach the user's cache.
            "ENCODERCHECK_CACHE": cache,
        }


def edited(source: str, defect: Defect) -> str:
    """Return the source with the defect in it.

    Raises:
        ValueError: the text to be replaced is not there exactly once.
    """
    count = source.count(defect.old)
    if count != 1:
        raise ValueError(f"{defect.name}: {defect.file} has its text {count} times")
    return source.replace(defect.old, defect.new)


def failures(report: Path) -> Iterator[str]:
    """Yield the tests that failed or crashed, by a JUnit report."""
    if not report.exists():
        return
    for case in ElementTree.parse(report).iter("testcase"):
        if any(case.find(kind) is not None for kind in ("failure", "error")):
            file = case.get("classname", "").removeprefix("tests.")
            yield f"{file}.py::{case.get('name')}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", dest="only", default="", help="defects whose names contain this")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "mutations")
    options = parser.parse_args()
    chosen = [defect for defect in DEFECTS if options.only in defect.name]
    if not chosen:
        parser.error(f"-k {options.only}: no defect of that name")
    with tempfile.TemporaryDirectory() as folder:
        rows = work_through(Copy.make(Path(folder)), chosen, options.out)
    survivors = [row["name"] for row in rows if not row["caught"] and row["name"] in names(chosen)]
    if survivors:
        raise SystemExit(f"survived: {', '.join(survivors)}")


def work_through(copy: Copy, chosen: Sequence[Defect], out: Path) -> list[Row]:
    """Judge the defects that have not been, and return all rows so far."""
    path = out.with_suffix(".json")
    rows: dict[str, Row] = {}
    if path.exists():
        rows = {row["name"]: row for row in json.loads(path.read_text())}
    digests = {defect.name: digest(copy, defect) for defect in chosen}
    due = [d for d in chosen if rows.get(d.name, {}).get("digest") != digests[d.name]]
    require_green(copy, due)
    for defect in due:
        run = copy.judge(defect)
        rows[defect.name] = {
            "name": defect.name,
            "caught": run.red,
            "by": list(run.failed),
            "seconds": round(run.seconds, 1),
            "status": run.status,
            "digest": digests[defect.name],
        }
        print(f"{defect.name}: {verdict(rows[defect.name])}", flush=True)
        if not run.red:
            print(run.output, flush=True)
        keep([rows[name] for name in names(DEFECTS) if name in rows], out)
    return [rows[name] for name in names(DEFECTS) if name in rows]


def require_green(copy: Copy, defects: Sequence[Defect]) -> None:
    """See that without any defect all the tests pass."""
    tests = dict.fromkeys(test for defect in defects for test in defect.tests)
    if not tests:
        return
    run = copy.run(tests)
    if not run.green:
        raise SystemExit(f"{run.output}\nnot green without a defect (status {run.status})")
    print(f"green without a defect, {run.seconds:.0f} s", flush=True)


def names(defects: Iterable[Defect]) -> list[str]:
    return [defect.name for defect in defects]


def digest(copy: Copy, defect: Defect) -> str:
    """Return what changes with the defect, the file that it is in, and the tests."""
    tests = sorted({test.partition("::")[0] for test in defect.tests})
    files = [copy.place(defect.file), *(copy.work / "tests" / test for test in tests)]
    texts = [file.read_text() for file in files]
    return content_hash([defect.file, defect.old, defect.new, *defect.tests, *texts])[:16]


def verdict(row: Row) -> str:
    if row["caught"]:
        return f"caught by {', '.join(row['by'])} in {row['seconds']:.0f} s"
    return f"SURVIVED (status {row['status']})"


def keep(rows: Sequence[Row], out: Path) -> None:
    """Write both files."""
    body = ",\n".join(json.dumps(row) for row in rows)
    atomic_write_text(out.with_suffix(".json"), f"[\n{body}\n]\n")
    atomic_write_text(out.with_suffix(".md"), page(rows))


def page(rows: Sequence[Row]) -> str:
    """Return the table as Markdown."""
    known = {defect.name: defect for defect in DEFECTS}
    caught = sum(row["caught"] for row in rows)
    lines = [
        "# Defects of the checks, and the tests that notice",
        "",
        "Made by `python -m benchmarks.mutations`: each defect of `benchmarks/defects.py` is put "
        "into a copy of the package, alone, and the tests named there are run up to the first that "
        "fails. Seconds include the start of the interpreter, and were taken on busy cores.",
        "",
        f"{caught} of {len(rows)} defects are noticed.",
        "",
        "| defect | where | what a user would suffer | noticed by | seconds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        defect = known[row["name"]]
        by = "<br>".join(f"`{test}`" for test in row["by"]) if row["caught"] else "**nothing**"
        cells = (row["name"], f"`{defect.file}`", defect.suffers, by, f"{row['seconds']:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
