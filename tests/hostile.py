"""Files made byte by byte, so that tests can break one rule of the format at a time."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def entry(dtype: str = "F32", shape: tuple[int, ...] = (1,), begin: int = 0, end: int = 4) -> Any:
    """Return a tensor's entry in a header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def raw(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a file's bytes: ``header`` is JSON bytes as they are, or a value to encode."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """Write such a file and return its path."""
    path.write_bytes(raw(header, data, length))
    return path


def shapes_only(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str = "F32",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a valid file of zeros with tensors of these shapes; sparse, so it costs no disk."""
    sizes = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1, "F8_E4M3": 1, "F64": 8, "I16": 2}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    reached = 0
    for name, shape in shapes.items():
        size = sizes[dtype]
        for side in shape:
            size *= side
        header[name] = entry(dtype, shape, reached, reached + size)
        reached += size
    write(path, header)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + reached)
    return path


# Values of JSON that take far more memory than text, by how many there are. Names are unique, and
# as short as they can be then: "wide" ones lie beyond Unicode's first plane.
SWELLING: dict[str, Callable[[int], str]] = {
    "lists": lambda count: _list("[]", count),
    "objects": lambda count: _list("{}", count),
    "objects of one member": lambda count: _list('{"a":1}', count),
    "lists of one": lambda count: _list("[999]", count),
    "integers": lambda count: _list("999", count),
    "long integers": lambda count: _list("9" * 20, count),
    "floats": lambda count: _list("1.5", count),
    "Latin strings": lambda count: _list('"éé"', count),
    "strings": lambda count: f"[{','.join(_names(count))}]",
    "wide strings": lambda count: f"[{','.join(_wide_names(count))}]",
    "members": lambda count: _object(_names(count), _names(count)),
    "members that are objects": lambda count: _object(_names(count), ['{"a":1}'] * count),
    "members that are lists": lambda count: _object(_names(count), ["[999]"] * count),
    "wide members": lambda count: _object(_wide_names(count), [r'"\ud83d\ude00"'] * count),
    "a string": lambda count: f'["{"a" * count}"]',
    "a string of escapes": lambda count: f'["{chr(92)}n{"a" * count}"]',
    "a wide string": lambda count: f'["{"a" * count}😀"]',
    "a wide string of escapes": lambda count: f'["{"a" * count}{chr(92)}n😀"]',
    "spaces": lambda count: f"[{' ' * count}]",
    "depth": lambda count: "[" * count + "]" * count,
    "depth of objects": lambda count: '{"a":' * count + "1" + "}" * count,
}


def swollen(kind: str, count: int) -> bytes:
    """Return a header of one member, which holds ``count`` values of a kind of ``SWELLING``."""
    return f'{{"a":{SWELLING[kind](count)}}}'.encode()


def many_tensors(count: int) -> bytes:
    """Return a valid file of ``count`` tensors, all of them empty, with the shapes of weights."""
    template = '"layers.%d.weight":{"dtype":"F32","shape":[512,0,3,3],"data_offsets":[0,0]}'
    return raw(f"{{{','.join(template % number for number in range(count))}}}".encode())


def _list(item: str, count: int) -> str:
    return f"[{f'{item},' * (count - 1)}{item}]"


def _object(names: list[str], values: list[str]) -> str:
    members = (f"{name}:{value}" for name, value in zip(names, values, strict=True))
    return f"{{{','.join(members)}}}"


def _names(count: int) -> list[str]:
    return [f'"{number:x}"' for number in range(count)]


def _wide_names(count: int) -> list[str]:
    return [
        f'"{chr(0x1F300 + number % 512)}{chr(0x1F300 + number // 512)}"' for number in range(count)
    ]
