"""Scans that were interrupted: what their checks had found is kept, and a later scan goes on.

It is kept in the cache under what a result rests on, as ``--out`` keeps results: another model,
seed, image set, profile, version or check, and there is nothing to go on with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from encodercheck.bounded import read_json
from encodercheck.cache import atomic_write_text, cache_dir, make_folder
from encodercheck.report import Finding, Outcome

if TYPE_CHECKING:
    from encodercheck.harness.state import ScanState
    from encodercheck.zoo.keys import Settings

FOLDER = "interrupted"
MOST, MOST_PARSING = 2**24, 2**27
DECIDED = (Outcome.PASSED, Outcome.FAILED, Outcome.INCONCLUSIVE)


@dataclass(frozen=True)
class Unfinished:
    """What is known of a scan that did not come to an end: findings, and the encoder's traits."""

    findings: tuple[Finding, ...] = ()
    traits: Mapping[str, float] = field(default_factory=dict)


def key_of(model: str, settings: Settings, state: ScanState) -> str | None:
    """Return what the results of a scan rest on, as a hash; None where not all of it can be seen.

    Raises:
        EncoderCheckError: a check, the images or a file of the model cannot be read any more.
    """
    from encodercheck.scanning import resolve
    from encodercheck.weights.files import locate
    from encodercheck.zoo import keys

    if not settings.reusable or state.second is not None:
        return None
    return keys.model_key(
        keys.ground(settings),
        sha256=state.encoder.provenance.sha256,
        configs=keys.configs_sha256(locate(resolve(model))),
        device=state.device.type,
    )


def keep(key: str, findings: tuple[Finding, ...], traits: Mapping[str, float]) -> Unfinished:
    """Keep those of the findings that say how a check ended, and return them.

    Raises:
        OutputError: the cache cannot be written to.
    """
    found = Unfinished(tuple(f for f in findings if f.outcome in DECIDED), dict(traits))
    if found.findings:
        text = {"findings": [f.to_dict() for f in found.findings], "traits": found.traits}
        make_folder(_path(key).parent)
        atomic_write_text(_path(key), json.dumps(text))
    return found


def take(key: str) -> Unfinished | None:
    """Return what was kept; None where there is nothing, or nothing that can be read."""
    try:
        kept = read_json(_path(key), MOST, parsing=MOST_PARSING)
        return Unfinished(
            tuple(map(Finding.from_dict, kept["findings"])),
            {str(name): float(value) for name, value in kept["traits"].items()},
        )
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        return None


def drop(key: str) -> None:
    """Forget what was kept."""
    with suppress(OSError):
        _path(key).unlink(missing_ok=True)


def _path(key: str) -> Path:
    return cache_dir() / FOLDER / f"{key}.json"
