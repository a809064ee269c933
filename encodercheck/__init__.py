"""encodercheck: pytest for image encoders.

Scan a pre-trained encoder for backdoors::

    import encodercheck

    report = encodercheck.scan("model.safetensors")
    print(report.outcome, report.exit_code)

The names below are loaded when they are first used: importing the package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encodercheck.encoder import Encoder
    from encodercheck.loading import load
    from encodercheck.report import Finding, Measurement, Report
    from encodercheck.scanning import scan
    from encodercheck.trigger import Trigger

__all__ = ["Encoder", "Finding", "Measurement", "Report", "Trigger", "load", "scan"]

_HOMES = {
    "Encoder": "encoder",
    "Finding": "report",
    "Measurement": "report",
    "Report": "report",
    "Trigger": "trigger",
    "load": "loading",
    "scan": "scanning",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
