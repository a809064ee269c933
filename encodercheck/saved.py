"""Read JSON files that encodercheck wrote itself: within bounds, and with one line for a fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from encodercheck.bounded import read_json
from encodercheck.errors import ConfigError
from encodercheck.weights.header import located, os_reason, quoted

T = TypeVar("T")


def read_saved(
    path: str | Path,
    parse: Callable[[Any], T],
    *,
    what: str,
    way_out: str,
    most: int,
    parsing: int,
    missing: str | None = None,
) -> T:
    """Return what ``parse`` makes of the JSON in a file of at most ``most`` bytes.

    ``what`` the file should be and the ``way_out`` are for the message; ``missing`` is the way out
    where the file cannot be read at all. ``parsing`` bounds the memory that parsing takes.

    Raises:
        ConfigError: the file is missing, too large, damaged, or something else.
    """
    try:
        return parse(read_json(Path(path), most, parsing=parsing))
    except OSError as error:
        raise ConfigError(
            f"{located(path)}: cannot be read ({os_reason(error)}); {missing or way_out}"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else error
        raise ConfigError(
            f"{located(path)}: no usable {what} ({quoted(reason, limit=200)}); {way_out}"
        ) from error
