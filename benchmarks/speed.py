"""Wall-clock times of whole commands, as a user waits for them.

    python -m benchmarks.speed [--first-use]

Each command runs three times after a warm-up; the median counts. ``--first-use`` also times, once,
a scan that has to generate its fixture first, in an empty cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

ENCODERCHECK = (sys.executable, "-m", "encodercheck")
COMMANDS = {
    "--help": 0.5,
    "scan fixture:clean --profile quick": 10,
    "scan fixture:badencoder --profile quick": 10,
    "scan fixture:clean": 30,
    "scan fixture:badencoder": 30,
}
FIRST_USE = ("scan fixture:badencoder", 180)
RUNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first-use", action="store_true")
    options = parser.parse_args()
    print("| command | seconds (median) | least | most | limit |\n| --- | --- | --- | --- | --- |")
    for command, limit in COMMANDS.items():
        seconds = [measure(command) for _ in range(RUNS + 1)][1:]
        show(command, seconds, limit)
    if options.first_use:
        command, limit = FIRST_USE
        with tempfile.TemporaryDirectory() as cache:
            show(f"{command} (first use)", [measure(command, cache)], limit)


def measure(command: str, cache: str | None = None) -> float:
    """Return the seconds a command takes, run in a folder of its own."""
    environment = os.environ | ({"ENCODERCHECK_CACHE": cache} if cache else {})
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        subprocess.run(
            [*ENCODERCHECK, *command.split()],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        return time.monotonic() - started


def show(command: str, seconds: list[float], limit: float) -> None:
    """Print one row."""
    median = statistics.median(seconds)
    print(f"| {command} | {median:.2f} | {min(seconds):.2f} | {max(seconds):.2f} | {limit} |")


if __name__ == "__main__":
    main()
