"""Configuration: the file that options can be kept in, its keys, and the rules that follow."""

from __future__ import annotations

from encodercheck.config.reading import (
    OWN,
    PYPROJECT,
    Config,
    find,
    parse,
    prefix,
    read,
    short,
)

__all__ = ["OWN", "PYPROJECT", "Config", "find", "parse", "prefix", "read", "short"]
