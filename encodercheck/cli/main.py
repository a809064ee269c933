"""The ``encodercheck`` command: one Typer application, one file per command group.

Nothing here, nor in the command files' top level, imports torch: ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from encodercheck import room
from encodercheck.cli import (
    calibrate,
    card,
    checks,
    completion,
    config,
    diff,
    fixtures,
    identify,
    init,
    merge,
    new_check,
    replay,
    report,
    samples,
    scan,
    verify,
    waive,
    zoo,
)
from encodercheck.errors import EncoderCheckError

NO_VERDICT = 2
INTERRUPTED = 130


class _Commands(TyperGroup):
    """Ctrl-C ends with 130; left to the framework it would end with 1, "a check failed"."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("encodercheck: interrupted, no verdict", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="encodercheck",
    cls=_Commands,
    help="pytest for image encoders: scan pre-trained encoders for backdoors.",
    epilog="Exit codes: 0 nothing failed and the searches decided, 1 a check failed, 2 no verdict.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("scan")(scan.command)
app.command("identify")(identify.command)
app.command("samples")(samples.command)
app.command("calibrate")(calibrate.command)
app.command("checks")(checks.command)
app.command("replay")(replay.command)
app.command("report")(report.command)
app.command("card")(card.command)
app.command("verify")(verify.command)
app.add_typer(fixtures.app, name="fixtures")
app.command("init")(init.command)
app.command("new-check")(new_check.command)
app.command("config")(config.command)
app.command("waive")(waive.command)
app.command("merge")(merge.command)
app.command("zoo")(zoo.command)
app.command("diff")(diff.command)


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"encodercheck {installed('encodercheck')}")
        raise typer.Exit


def main() -> None:
    """Run the command line; whatever goes wrong, 1 is only ever "a check failed"."""
    # Read when torch is loaded. Threads that spin while they wait for one another cost a scan of a
    # small encoder five times its time as soon as a core is shared, and gain nothing otherwise.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    completion.step_over_colon()
    try:
        app()
    except EncoderCheckError as error:
        from encodercheck.render.console import printable

        print(f"encodercheck: {printable(str(error))}", file=sys.stderr)
        sys.exit(NO_VERDICT)
    except BrokenPipeError:
        # The reader of our output has gone; say nothing more, and no verdict was delivered.
        sys.stderr.close()
        sys.exit(NO_VERDICT)
    except Exception as error:
        if room.ran_out(error):
            print(f"encodercheck: memory ran out; no verdict; {room.WAY_OUT}", file=sys.stderr)
            sys.exit(NO_VERDICT)
        traceback.print_exc()
        print("encodercheck: this is a bug in encodercheck; no verdict", file=sys.stderr)
        sys.exit(NO_VERDICT)
