"""encodercheck with a suite of one quick check, EC101; run it as the command is run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from encodercheck import scanning
from encodercheck.harness import runner


def suite(checks: Sequence[str | Path] = ()) -> list[Path]:
    """Return where checks are collected from."""
    (quick,) = runner.builtin_suite().glob("check_ec101_*.py")
    return [quick, *map(Path, checks)]


if __name__ == "__main__":
    from encodercheck.cli.main import main

    scanning.suite = suite
    main()
