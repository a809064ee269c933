"""``encodercheck checks``: the suite."""

from __future__ import annotations

from encodercheck.cli import options


def command(checks: options.Checks = None) -> None:
    """List the checks a scan runs: id, severity, and what each one means."""
    from encodercheck.cli.output import console
    from encodercheck.harness.packs import installed_packs
    from encodercheck.harness.runner import builtin_suite, list_checks
    from encodercheck.render.console import printable

    paths = [builtin_suite(), *installed_packs(), *(checks or [])]
    with console() as screen:
        for info in list_checks(paths):
            screen.print(f"{printable(info.id):<9} {info.severity:<9} {printable(info.title)}")
