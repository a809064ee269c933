"""``encodercheck checks``: the suite."""

from __future__ import annotations

from encodercheck.cli import options


def command(checks: options.Checks = None) -> None:
    """List the checks a scan runs: id, severity, and what each one means."""
    from encodercheck.cli.output import console
    from encodercheck.harness.runner import list_checks, suite
    from encodercheck.render.console import printable

    with console() as screen:
        for info in list_checks(suite(checks or [])):
            screen.print(f"{printable(info.id):<9} {info.severity:<9} {printable(info.title)}")
