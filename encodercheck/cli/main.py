"""The ``encodercheck`` command: one Typer application, one file per command group.

Nothing here, nor in the command files' top level, imports torch: ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

import typer
from typer.core import TyperGroup

from encodercheck.cli import (
    calibrate,
    card,
    checks,
    completion,
    config,
    diff,
    ending,
    explain,
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
from encodercheck.cli.supervising import supervised


class _Commands(TyperGroup):
    """Settles exit codes; left to the framework, Ctrl-C and a broken pipe would end with 1."""

    def invoke(self, ctx: Any) -> Any:
        raise typer.Exit(ending.code_of(partial(super().invoke, ctx)))


app = typer.Typer(
    name="encodercheck",
    cls=_Commands,
    help="pytest for image encoders: scan pre-trained encoders for backdoors.",
    epilog="Exit codes: 0 nothing failed and the searches decided, 1 a check failed, 2 no verdict.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command("scan")(supervised(scan.command))
app.command("identify")(identify.command)
app.command("samples")(supervised(samples.command))
app.command("calibrate")(supervised(calibrate.command))
app.command("checks")(checks.command)
app.command("explain")(explain.command)
app.command("replay")(supervised(replay.command))
app.command("report")(report.command)
app.command("card")(card.command)
app.command("verify")(supervised(verify.command))
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
    if ending.open_closed_streams():
        ending.say(f"standard output is closed; no verdict; send it to a file or to {os.devnull}")
        sys.exit(ending.NO_VERDICT)
    completion.step_over_colon()
    sys.exit(ending.code_of(app))
