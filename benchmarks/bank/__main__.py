"""The commands of the bank, see the package."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

# Threads that spin while they wait slow each other down as soon as a core is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ACTIONS = ("make", "measure", "fit", "exam", "report")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bank", description=__doc__)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--first", type=int, default=None, help="only so many members")
    parser.add_argument("--part", default="1/1", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.jobs > 1 and options.action in ("make", "measure"):
        sys.exit(share(options))
    work(options)


def share(options: argparse.Namespace) -> int:
    """Run the same command in several processes, each with its part; return the worst status."""
    command = [sys.executable, "-m", "benchmarks.bank", options.action]
    command += ["--first", str(options.first)] if options.first is not None else []
    parts = [f"{number + 1}/{options.jobs}" for number in range(options.jobs)]
    running = [subprocess.Popen([*command, "--part", part]) for part in parts]
    return max(process.wait() for process in running)


def work(options: argparse.Namespace) -> None:
    """Do one process's part."""
    import torch

    from benchmarks.bank.members import members

    if options.action == "fit":
        from benchmarks.bank.fitting import fit

        fit()
        return
    if options.action == "exam":
        from benchmarks.bank.exam import exam

        exam()
        return
    if options.action == "report":
        from benchmarks.bank.reporting import report

        report()
        return
    index, count = map(int, options.part.split("/"))
    chosen = members()[: options.first]
    # By pairs, so that no process gets one half of the families.
    own = [m for m in chosen if (m.number // 16 + m.number) % count == index - 1]
    torch.set_num_threads(1)
    if options.action == "make":
        from benchmarks.bank.making import make

        for member in own:
            print(member, make(member), flush=True)
    if options.action == "measure":
        from benchmarks.bank.measuring import measure

        for member in own:
            for poisoned in (True,) if member.repeats_clean else (False, True):
                row = measure(member, poisoned=poisoned)
                if row is not None:
                    print(member.number, poisoned, row["seconds"], flush=True)


if __name__ == "__main__":
    main()
