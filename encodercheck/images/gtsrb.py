"""GTSRB, German traffic signs (Stallkamp et al., IJCNN 2011): a picture file for each image."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
from torch import Tensor

from encodercheck.errors import ImagesError
from encodercheck.images.binary import AGAIN, contents
from encodercheck.images.labelled import Files, Pictures, checked_labels
from encodercheck.weights.header import located, os_reason, quoted

CLASSES = 43
TRAINING = ("Training", "Final_Training/Images")
TEST = "Final_Test/Images"
TRUTH = "GT-final_test.csv"
CLASS = re.compile(r"[0-9]{1,5}")
CLASS_FOLDER = re.compile(r"[0-9]{5}")
MOST_BYTES = 10_000_000


def read(folder: Path, split: str) -> tuple[Tensor, Pictures]:
    """Read a split of the folder GTSRB."""
    return _train(folder) if split == "train" else _test(folder)


def _train(folder: Path) -> tuple[Tensor, Pictures]:
    """Return what lies in a folder for each class; its table must agree where there is one."""
    root = next((folder / place for place in TRAINING if (folder / place).is_dir()), None)
    if root is None:
        raise ImagesError(
            f"{located(folder)}: no training images; looked for {' and '.join(TRAINING)}; {AGAIN}"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for place in [root / name for name in _names(root) if CLASS_FOLDER.fullmatch(name)]:
        found = [place / name for name in _pictures(place)]
        table = place / f"GT-{place.name}.csv"
        if table.exists():
            _require_agreement(table, _table(table), {path.name for path in found})
        paths += found
        labels += [int(place.name)] * len(found)
    if not paths:
        raise ImagesError(f"{located(root)}: holds no images in folders 00000 to 00042; {AGAIN}")
    return checked_labels(root, np.array(labels), CLASSES), Files(tuple(paths))


def _require_agreement(table: Path, rows: dict[str, int], names: set[str]) -> None:
    """Demand that a class's table lists its pictures and no others, all of this class."""
    astray = sorted(names ^ set(rows))
    if astray:
        raise ImagesError(
            f"{located(table)}: lists {len(rows)} files, its folder holds {len(names)}, and "
            f"{quoted(astray[0])} is one of a single side; {AGAIN}"
        )
    if set(rows.values()) - {int(table.parent.name)}:
        raise ImagesError(f"{located(table)}: lists another class than its folder's; {AGAIN}")


def _test(folder: Path) -> tuple[Tensor, Pictures]:
    """Return the pictures that the table of the test set lists."""
    root = folder / TEST
    tables = (folder.parent / TRUTH, folder / TRUTH)
    table = next((place for place in tables if place.exists()), tables[0])
    rows, names = _table(table), set(_pictures(root))
    missing = sorted(set(rows) - names)
    if missing:
        raise ImagesError(
            f"{located(table)}: lists {quoted(missing[0])}, which {located(root)} lacks; {AGAIN}"
        )
    labels = np.array([rows[name] for name in sorted(rows)])
    return checked_labels(table, labels, CLASSES), Files(tuple(root / n for n in sorted(rows)))


def _pictures(folder: Path) -> list[str]:
    return [name for name in _names(folder) if name.endswith(".ppm") and (folder / name).is_file()]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(file.name for file in folder.iterdir())
    except OSError as error:
        raise ImagesError(
            f"{located(folder)}: cannot be read ({os_reason(error)}); {AGAIN}"
        ) from error


def _table(path: Path) -> dict[str, int]:
    """Return the class of every file that a table lists."""
    raw = contents(path, MOST_BYTES)
    try:
        rows = list(csv.DictReader(raw.decode("ascii").splitlines(), delimiter=";"))
        found = {row["Filename"]: _class(row["ClassId"]) for row in rows}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ImagesError(
            f"{located(path)}: no table with Filename and ClassId, separated by semicolons; {AGAIN}"
        ) from error
    if not found or len(found) < len(rows):
        raise ImagesError(f"{located(path)}: lists no files, or one of them twice; {AGAIN}")
    return found


def _class(text: str) -> int:
    if not CLASS.fullmatch(text):
        raise ValueError("no number of a class")
    return int(text)
