"""Run the command line as a user does: in a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import warm

TIMEOUT = 240
COMMAND = (sys.executable, "-m", "encodercheck")


def environment(**extra: str) -> dict[str, str]:
    """Return the environment without what would change the output's looks."""
    looks = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "CI", "GITHUB_ACTIONS")
    return {k: v for k, v in os.environ.items() if k not in looks} | {"TERM": "dumb", **extra}


_WARM = warm.Interpreter()


def run(*arguments: str | Path, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run ``encodercheck ARGUMENTS`` in ``cwd`` and return its exit code and output."""
    return python(*COMMAND[1:], *arguments, cwd=cwd, **extra)


def python(*arguments: str | Path, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENTS`` in ``cwd`` and return its exit code and output."""
    words = [*map(str, arguments)]
    if _WARM.can_run(words, extra):
        return _WARM.run(words, cwd=cwd, env=environment(**extra), timeout=TIMEOUT)
    return fresh(*arguments, cwd=cwd, **extra)


def fresh(*arguments: str | Path, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENTS`` in an interpreter that has imported nothing yet."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
