"""Put folders of results together: each result once, in whichever order the folders are named."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from encodercheck.cache import atomic_write_bytes, atomic_write_text, make_folder
from encodercheck.errors import ConfigError
from encodercheck.zoo import results
from encodercheck.zoo.keeping import KEY_SHOWN, beside, remove_others, safe_name
from encodercheck.zoo.results import LEDGER, REPORT, REPORTS, Entry


@dataclass(frozen=True)
class Placed:
    """An entry, and the folder of results that it is in."""

    folder: Path
    entry: Entry

    @property
    def place(self) -> Path:
        """The folder of its report."""
        return (self.folder / self.entry.report).parent


@dataclass(frozen=True)
class Merged:
    """What was put together: how many entries, and what of it does not agree, a line each."""

    entries: int
    conflicts: tuple[str, ...] = ()


def merge(folders: Sequence[Path], out: Path) -> Merged:
    """Put the results of ``folders`` into ``out``, beside those that are there already.

    A result is of a model under a key, and of two the later one holds. The outcome does not depend
    on the order of the folders, and to merge again changes nothing.

    Raises:
        ConfigError: a folder holds no results, or a damaged one.
        OutputError: ``out`` cannot be written to.
    """
    there = [out] if (out / LEDGER).exists() else []
    placed = [Placed(f, entry) for f in (*there, *folders) for entry in results.lines(f)]
    kept: dict[tuple[str, str], Placed] = {}
    for one in sorted(placed, key=lambda one: (one.entry.rank, one.entry.outcome)):
        kept[one.entry.identity] = one
    chosen = sorted(kept.values(), key=lambda one: (one.entry.rank, one.entry.model))
    make_folder(out)
    with FileLock(out / f".{LEDGER}.lock"):
        entries = list(_copied(chosen, out))
        text = "".join(json.dumps(entry.to_dict(), allow_nan=False) + "\n" for entry in entries)
        atomic_write_text(out / LEDGER, text)
    return Merged(len(entries), tuple(_conflicts(placed)))


def _copied(chosen: Iterable[Placed], out: Path) -> Iterator[Entry]:
    """Copy reports with what is beside them; yield the entries as they are in ``out``."""
    taken: set[str] = set()
    for one in chosen:
        stem = f"{safe_name(one.entry.model)}-{one.entry.key[:KEY_SHOWN]}"
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}~{number}"
        taken.add(name)
        target = make_folder(out / REPORTS / name)
        if not _same(one.place, target):
            _copy(one, target)
        yield replace(one.entry, report=f"{REPORTS}/{name}/{REPORT}")


def _copy(one: Placed, target: Path) -> None:
    try:
        report = (one.folder / one.entry.report).read_bytes()
        files = beside(one.place)
    except OSError as error:
        raise ConfigError(
            f"{one.folder / one.entry.report}: cannot be read ({error.strerror}); scan "
            f"{one.entry.model} again"
        ) from error
    remove_others(target, files)
    for file, data in files.items():
        make_folder((target / file).parent)
        atomic_write_bytes(target / file, data)
    atomic_write_bytes(target / REPORT, report)


def _same(place: Path, target: Path) -> bool:
    return place.resolve() == target.resolve()


def _conflicts(placed: Sequence[Placed]) -> Iterator[str]:
    """Say which models have results that do not agree; of one folder the latest is meant."""
    latest: dict[str, dict[Path, Entry]] = {}
    for one in sorted(placed, key=lambda one: one.entry.rank):
        latest.setdefault(one.entry.model, {})[one.folder] = one.entry
    for model in sorted(latest):
        found = latest[model]
        verdicts = sorted({entry.outcome for entry in found.values()})
        keys = {entry.key for entry in found.values()}
        where = ", ".join(sorted(map(str, found)))
        if len(verdicts) > 1:
            yield f"{model}: {' and '.join(verdicts)} ({where}); the latest holds"
        elif len(keys) > 1:
            yield (
                f"{model}: results of different weights, settings or versions ({where}); the "
                "latest holds"
            )
