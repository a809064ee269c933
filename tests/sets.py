"""Small data sets on the disk, in every format that they come in."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image

BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
# By split: pixels (N, 3, H, W) of 8 bits, labels (N,).
Splits = dict[str, tuple[Any, Any]]


def random(count: int, classes: int, side: int = 32, seed: int = 0) -> tuple[Any, Any]:
    """Return noise and labels."""
    drawn = np.random.default_rng(seed)
    pixels = drawn.integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    return pixels, drawn.integers(0, classes, count)


def both(train: int, test: int, classes: int, side: int = 32) -> Splits:
    """Return two splits of noise."""
    return {"train": random(train, classes, side, 1), "test": random(test, classes, side, 2)}


def records(pixels: Any, *labels: Any) -> bytes:
    """Return CIFAR's binary records."""
    columns = [np.asarray(column, dtype=np.uint8)[:, None] for column in labels]
    return np.concatenate([*columns, pixels.reshape(len(pixels), -1)], axis=1).tobytes()


def pickled(protocol: int) -> Callable[[Any, Any], bytes]:
    """Return what writes CIFAR's batches as Python 3 would."""

    def write(pixels: Any, labels: Any) -> bytes:
        content = {
            b"batch_label": b"a batch",
            b"labels": [int(label) for label in labels],
            b"data": pixels.reshape(len(pixels), -1),
            b"filenames": [b"%d.png" % number for number in range(len(pixels))],
        }
        return pickle.dumps(content, protocol)

    return write


def python_2(pixels: Any, labels: Any, key: bytes = b"labels") -> bytes:
    """Return a batch as the archive has it: written by Python 2.7 and numpy 1, protocol 2."""
    memo = iter(range(256))

    def put() -> bytes:
        return b"q" + bytes([next(memo)])

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value + put()

    def integer(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"J" + struct.pack("<i", value)

    def name(value: bytes) -> bytes:
        return b"c" + value + put()

    def listed(items: list[bytes]) -> bytes:
        parts = [items[start : start + 1000] for start in range(0, len(items), 1000)]
        return b"]" + put() + b"".join(b"(" + b"".join(part) + b"e" for part in parts)

    raw = pixels.tobytes()
    kind = name(b"numpy\ndtype\n") + text(b"u1") + integer(0) + integer(1) + b"\x87" + put() + b"R"
    array = (
        name(b"numpy.core.multiarray\n_reconstruct\n")
        + (name(b"numpy\nndarray\n") + integer(0) + b"\x85" + put() + text(b"b") + b"\x87" + put())
        + (b"R" + put() + b"(" + integer(1))
        + (integer(len(pixels)) + integer(len(raw) // max(1, len(pixels))) + b"\x86" + put())
        + (kind + put() + b"(" + integer(3) + text(b"|") + b"NNN")
        + (b"J\xff\xff\xff\xff" * 2 + integer(0) + b"t" + put() + b"b\x89")
        + (b"T" + struct.pack("<i", len(raw)) + raw + put() + b"t" + put() + b"b")
    )
    return (
        (b"\x80\x02}" + put() + b"(" + text(b"batch_label") + text(b"training batch 1 of 5"))
        + (text(key) + listed([integer(int(label)) for label in labels]))
        + (text(b"data") + array)
        + (text(b"filenames") + listed([b"U\x05a.png" for _ in labels]))
        + b"u."
    )


def binary(pixels: Any, labels: Any) -> bytes:
    """Return a batch of CIFAR-10's binary version."""
    return records(pixels, labels)


# How a batch of CIFAR-10 may be written.
CIFAR: Mapping[str, Callable[[Any, Any], bytes]] = {
    "binary": binary,
    "python 2": python_2,
    **{f"protocol {protocol}": pickled(protocol) for protocol in range(6)},
}


def cifar10(root: Path, splits: Splits, written: str = "binary") -> Path:
    """Write CIFAR-10 as torchvision keeps it, or the binary version, under ``root``."""
    ending = ".bin" if written == "binary" else ""
    folder = root / ("cifar-10-batches-bin" if ending else "cifar-10-batches-py")
    folder.mkdir(parents=True)
    for split, (pixels, labels) in splits.items():
        names = BATCHES[split]
        rows = np.array_split(np.arange(len(pixels)), len(names))
        for name, part in zip(names, rows, strict=True):
            (folder / f"{name}{ending}").write_bytes(CIFAR[written](pixels[part], labels[part]))
    return root


def cifar100(root: Path, splits: Splits, written: str = "binary") -> Path:
    """Write CIFAR-100; the coarse labels are all 7."""
    is_binary = written == "binary"
    folder = root / ("cifar-100-binary" if is_binary else "cifar-100-python")
    folder.mkdir(parents=True)
    for split, (pixels, labels) in splits.items():
        if is_binary:
            data = records(pixels, np.full_like(labels, 7), labels)
        else:
            data = python_2(pixels, labels, b"fine_labels")
        (folder / (f"{split}.bin" if is_binary else split)).write_bytes(data)
    return root


def stl10(root: Path, splits: Splits) -> Path:
    """Write STL-10: column by column, labels from 1."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for split, (pixels, labels) in splits.items():
        (folder / f"{split}_X.bin").write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())
        if split != "unlabeled":
            (folder / f"{split}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
    return root


def svhn(root: Path, splits: Splits) -> Path:
    """Write SVHN: the image's number last, 10 for the digit 0."""
    root.mkdir(parents=True, exist_ok=True)
    for split, (pixels, labels) in splits.items():
        digits = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        content = {"X": pixels.transpose(2, 3, 1, 0), "y": digits}
        scipy.io.savemat(root / f"{split}_32x32.mat", content, do_compression=True)
    return root


def gtsrb(root: Path, splits: Splits) -> Path:
    """Write GTSRB as torchvision keeps it; images are as wide as high."""
    base = root / "gtsrb"
    for number in range(43):
        (base / "GTSRB" / "Training" / f"{number:05}").mkdir(parents=True)
    (base / "GTSRB" / "Final_Test" / "Images").mkdir(parents=True)
    for split, (pixels, labels) in splits.items():
        rows: dict[Path, list[str]] = {}
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            folder = base / "GTSRB" / "Final_Test" / "Images"
            table = base / "GT-final_test.csv"
            if split == "train":
                folder = base / "GTSRB" / "Training" / f"{label:05}"
                table = folder / f"GT-{label:05}.csv"
            name = f"{number:05}.ppm"
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / name)
            rows.setdefault(table, []).append(f"{name};9;9;1;1;8;8;{label}")
        for table, lines in rows.items():
            head = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
            table.write_text("\r\n".join([head, *lines, ""]))
    return root
