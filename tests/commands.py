"""Run the command line as a user does: in a fresh process, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COMMAND = (sys.executable, "-m", "encodercheck")


def environment(**extra: str) -> dict[str, str]:
    """Return the environment without what would change the output's looks."""
    looks = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "CI", "GITHUB_ACTIONS")
    return {k: v for k, v in os.environ.items() if k not in looks} | {"TERM": "dumb", **extra}


def run(*arguments: str | Path, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run ``encodercheck ARGUMENTS`` in ``cwd`` and return its exit code and output."""
    return python(*COMMAND[1:], *arguments, cwd=cwd, **extra)


def python(*arguments: str | Path, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENTS`` in ``cwd`` and return its exit code and output."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
