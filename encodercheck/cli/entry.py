"""Where the ``encodercheck`` program begins, whatever state the installation is in."""

from __future__ import annotations

import sys
import traceback

NO_VERDICT = 2


def main() -> None:
    """Run the command line; an installation that cannot be imported is no verdict.

    Left to Python it would be exit code 1, "a check failed".
    """
    try:
        from encodercheck.cli.main import main as run
    except Exception:
        traceback.print_exc()
        print("encodercheck: this installation is broken; reinstall it", file=sys.stderr)
        sys.exit(NO_VERDICT)
    run()
