"""Checks in a team's own pytest: ``pytest --encoder model.safetensors checks/``.

Every pytest run of an environment loads this file, so it imports nothing that takes time.
Without ``--encoder`` it adds its options and its marker, and does nothing else.
"""

from __future__ import annotations

from pathlib import Path

import pytest

PROFILES = ("quick", "standard", "thorough")
MARKER = (
    "check(id, *, severity, catches): the id and severity of an encodercheck check, and the "
    "poisoned fixtures that it catches"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--encoder`` and what goes with it."""
    group = parser.getgroup("encodercheck", "checks of image encoders")
    group.addoption("--encoder", metavar="MODEL", help="collect check_*.py, and run them on MODEL")
    group.addoption("--encoder-arch", metavar="SPEC", help="the architecture of the encoder")
    group.addoption(
        "--encoder-tower", metavar="PREFIX", help="which encoder, where the file holds several"
    )
    group.addoption("--encoder-images", metavar="SRC", help="where the clean images come from")
    group.addoption(
        "--encoder-profile", choices=PROFILES, default="standard", help="how hard the checks look"
    )
    group.addoption("--encoder-null", metavar="FILE", help="clean encoders to compare with")
    group.addoption("--encoder-seed", type=int, default=0, metavar="N", help="the seed of the scan")
    group.addoption("--encoder-device", default="auto", metavar="DEVICE", help="where it computes")
    group.addoption("--encoder-artifacts", type=Path, metavar="DIR", help="where witnesses go")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and host checks where there is an encoder."""
    config.addinivalue_line("markers", MARKER)
    if config.getoption("--encoder") is not None:
        from encodercheck.harness.guest import host_checks

        host_checks(config)
