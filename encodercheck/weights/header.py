"""The header of a .safetensors file, read and validated without torch.

The format: 8 bytes, the little-endian length of the header; the header, one JSON object from tensor
names to ``{"dtype", "shape", "data_offsets"}`` and from ``__metadata__`` to strings; then the data,
which the tensors cover exactly, without holes or overlaps.

The file may be hostile: reading a header takes no more memory than the file's own size and
``MAX_PARSING``, and messages repeat nothing of it unescaped.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from encodercheck.errors import LoadError

LENGTH_BYTES = 8
# The largest headers of real encoders describe a few thousand tensors in less than a megabyte.
MAX_HEADER = 8 * 2**20
MAX_TENSORS = 20_000
MAX_NAME = 1_000
MAX_DIMENSIONS = 32
# Beyond this, other readers overflow 64 bits when they count a tensor in bits.
MAX_ELEMENTS = 2**57

# Bytes of memory that parsing may take, beside the JSON text as it was read.
MAX_PARSING = 60_000_000
# What the json module of CPython 3.10 to 3.13 takes at worst, with a margin: so much for every byte
# of the text and for every value in it. Characters beyond ASCII make strings up to four times as
# large, and an escape in a string holds another copy of it for a while.
ASCII_COSTS = (2.5, 160)
WIDE_COSTS = (10.5, 240)
SURROGATES = re.compile("[\ud800-\udfff]")

DTYPE_BITS: Mapping[str, int] = {
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
GET_ANOTHER = "the file is damaged or no .safetensors file; download or save it again"
SAVE_LESS = "save the encoder alone in a file of its own"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as the header declares it; ``offsets`` are (begin, end) in the data."""

    dtype: str
    shape: tuple[int, ...]
    offsets: tuple[int, int]

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A valid header: what the file holds, and where the data start."""

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int
    file_size: int


def quoted(text: object, limit: int = 80) -> str:
    """Return text from a file fit for a message: unprintable characters escaped, and shortened."""
    escaped = repr(str(text)[: 2 * limit])[1:-1]
    return escaped if len(escaped) <= limit else escaped[: limit - 3] + "..."


def listed(names: Iterable[object], count: int = 3) -> str:
    """Return the first few names for a message, as "a, b, c and 12 more"."""
    names = list(names)
    shown = ", ".join(quoted(name) for name in names[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"


def located(path: Path | str) -> str:
    """Return a path fit for a message: whole, unprintable characters escaped."""
    return quoted(path, limit=1_000)


def os_reason(error: BaseException) -> str:
    """Return what the operating system said, without the path it may repeat."""
    return quoted(getattr(error, "strerror", None) or error)


def reason(error: BaseException) -> str:
    """Return any other exception on one line, with its type."""
    return quoted(f"{type(error).__name__}: {error}", limit=200)


def read_header(path: str | Path) -> Header:
    """Read and validate the header of a .safetensors file; no tensor is read.

    Raises:
        LoadError: the file cannot be read, breaks a rule of the format, or holds more than any
            encoder. Every rule is checked here, so that a later reader meets no surprise.
    """
    path = Path(path)
    try:
        raw, file_size = _read_bytes(path)
        entries = _parse(raw)
        metadata = _metadata(entries.pop("__metadata__", {}))
        tensors = {name: _tensor(name, entry) for name, entry in entries.items()}
        data_start = LENGTH_BYTES + len(raw)
        _check_layout(tensors, file_size - data_start)
    except _InvalidError as error:
        raise LoadError(f"{located(path)}: {error}") from error
    except (OSError, ValueError) as error:  # ValueError: the path holds a NUL
        raise LoadError(f"{located(path)}: cannot be read: {os_reason(error)}") from error
    return Header(path, tensors, metadata, data_start, file_size)


class _InvalidError(ValueError):
    """A broken rule; the message lacks only the file's name."""


def strict_json(text: str) -> Any:
    """Parse JSON, refusing what readers disagree on: duplicate keys, NaN, endless numbers, depth.

    Raises:
        ValueError: the text is not such JSON; the message repeats none of it unescaped.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_unique, parse_int=_integer, parse_constant=_no_constant
        )
    except (RecursionError, MemoryError) as error:
        raise _InvalidError("the JSON is nested too deeply") from error


def check_structure(raw: bytes, most: int) -> None:
    """Refuse JSON text, not parsed yet, that could take more than ``most`` bytes to parse.

    Few bytes of JSON can make large objects: ``[],`` takes 67. Every value follows a bracket, a
    comma or a colon, so that these bound their number; those inside strings count too.

    Raises:
        ValueError: it could; the message repeats nothing of the text.
    """
    plain = raw.isascii() and b"\\u" not in raw
    per_byte, per_value = ASCII_COSTS if plain else WIDE_COSTS
    values = sum(map(raw.count, (b"[", b"{", b",", b":")))
    if per_byte * len(raw) + per_value * values > most:
        raise _InvalidError(f"it could take more than {most // 10**6} MB of memory to parse")


def _read_bytes(path: Path) -> tuple[bytes, int]:
    """Return the JSON bytes of the header and the size of the file."""
    if not stat.S_ISREG(path.stat().st_mode):
        # Opening a pipe or a device could wait for ever.
        raise _InvalidError("not a regular file; pass a .safetensors file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(LENGTH_BYTES)
        if size == 0:
            raise _InvalidError("the file is empty; download or save it again")
        if len(prefix) < LENGTH_BYTES:
            raise _InvalidError(f"{size} bytes are too few for a header; {GET_ANOTHER}")
        length = int.from_bytes(prefix, "little")
        if length > MAX_HEADER:
            raise _InvalidError(
                f"it declares a header of {length} bytes (at most {MAX_HEADER}); {GET_ANOTHER}"
            )
        if LENGTH_BYTES + length > size:
            raise _InvalidError(
                f"truncated: it declares a header of {length} bytes but has {size} in all; "
                "download or save it again"
            )
        raw = file.read(length)
    if len(raw) < length:
        raise _InvalidError("it became shorter while it was read; try again")
    return raw, size


def _parse(raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise _InvalidError(f"the header is not a JSON object; {GET_ANOTHER}")
    if raw.count(b'"data_offsets"') > MAX_TENSORS:
        raise _InvalidError(f"describes more than {MAX_TENSORS} tensors; {SAVE_LESS}")
    try:
        check_structure(raw, MAX_PARSING)
    except _InvalidError as error:
        raise _InvalidError(f"the header is too large: {error}; {SAVE_LESS}") from error
    try:
        entries = strict_json(raw.decode("utf-8"))
    except _InvalidError as error:
        raise _InvalidError(f"the header is invalid: {error}; {GET_ANOTHER}") from error
    except UnicodeDecodeError as error:
        raise _InvalidError(f"the header is not UTF-8 ({error.reason}); {GET_ANOTHER}") from error
    except ValueError as error:
        raise _InvalidError(
            f"the header is not valid JSON ({quoted(error)}); {GET_ANOTHER}"
        ) from error
    assert isinstance(entries, dict)  # it starts with a brace
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _InvalidError(f"the name '{quoted(name)}' occurs twice")
        found[name] = value
    return found


def _integer(digits: str) -> int:
    # Python refuses to convert thousands of digits with an error of its own.
    if len(digits) > 20 or digits == "-0":
        raise _InvalidError(f"the number {quoted(digits, 24)} is out of range")
    return int(digits)


def _no_constant(name: str) -> NoReturn:
    raise _InvalidError(f"{name} is not JSON")


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _InvalidError(f"__metadata__ is not an object of strings; {GET_ANOTHER}")
    if any(SURROGATES.search(text) for item in value.items() for text in item):
        raise _InvalidError(f"__metadata__ holds what is not Unicode text; {GET_ANOTHER}")
    return value


def _tensor(name: str, entry: Any) -> TensorInfo:
    try:
        _check_name(name)
        if not isinstance(entry, dict) or entry.keys() != ENTRY_KEYS:
            raise _InvalidError("is not described by dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
            raise _InvalidError(f"has the unknown dtype '{quoted(dtype, 24)}'")
        if not _sizes(shape):
            raise _InvalidError("has an invalid shape")
        if len(shape) > MAX_DIMENSIONS:
            raise _InvalidError(f"has a shape of more than {MAX_DIMENSIONS} dimensions")
        if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise _InvalidError("has invalid data_offsets")
        _check_size(dtype, shape, offsets[1] - offsets[0])
    except _InvalidError as error:
        raise _InvalidError(f"tensor '{quoted(name)}' {error}; {GET_ANOTHER}") from error
    return TensorInfo(dtype, tuple(shape), (offsets[0], offsets[1]))


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME:
        raise _InvalidError(f"has a name of more than {MAX_NAME} characters")
    if SURROGATES.search(name):
        raise _InvalidError("has a name that is not Unicode text")


def _sizes(value: Any) -> bool:
    """Tell whether a value is a list of non-negative integers; True and False are none."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_size(dtype: str, shape: list[int], size: int) -> None:
    # A zero hides the other dimensions from the product, but not from readers that multiply in
    # turn; stopping early keeps a shape of many huge dimensions from growing a huge number.
    product = 1
    for dimension in shape:
        product *= dimension or 1
        if product > MAX_ELEMENTS:
            raise _InvalidError("has a shape too large for any machine")
    bits = (0 if 0 in shape else product) * DTYPE_BITS[dtype]
    if bits != 8 * size:
        needed = f"{bits // 8} bytes" if bits % 8 == 0 else f"{bits} bits"
        raise _InvalidError(f"takes {needed} by its shape, but {size} bytes by its data_offsets")


def _check_layout(tensors: Mapping[str, TensorInfo], size: int) -> None:
    """Check that the tensors cover the data exactly, in some order."""
    reached = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].offsets):
        begin, end = tensor.offsets
        if begin != reached:
            fault = "overlaps another tensor" if begin < reached else "follows a hole in the data"
            raise _InvalidError(f"tensor '{quoted(name)}' {fault}; {GET_ANOTHER}")
        reached = end
    if reached > size:
        raise _InvalidError(
            f"truncated: the tensors take {reached} bytes but {size} are there; "
            "download or save it again"
        )
    if reached < size:
        raise _InvalidError(
            f"bytes left over after the last tensor: {size - reached}; {GET_ANOTHER}"
        )
