import contextlib
import json
import os
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import SWELLING, entry, many_tensors, raw, swollen, write
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from safetensors.torch import save as save_torch

from encodercheck.errors import LoadError
from encodercheck.weights.header import (
    MAX_HEADER,
    MAX_TENSORS,
    check_structure,
    quoted,
    read_header,
    strict_json,
)

NUMPY_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "I64": np.int64,
    "I32": np.int32,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
# The memory that reading a header may take beyond the size of the file.
SPARE = 64_000_000
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ARRAYS = st.sampled_from(sorted(NUMPY_DTYPES)).flatmap(
    lambda name: hnp.arrays(
        NUMPY_DTYPES[name], hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    )
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("header") / "model.safetensors"


def refusal(path: Path) -> str:
    """Return the message with which a file is refused; it is one short line of plain text."""
    with pytest.raises(LoadError) as caught:
        read_header(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert len(message) < len(str(path)) + 300
    return message


@settings(max_examples=60, deadline=None)
@given(
    arrays=st.dictionaries(
        # safetensors itself writes no valid file for metadata without tensors.
        NAMES.filter(lambda name: name != "__metadata__"),
        ARRAYS,
        min_size=1,
        max_size=5,
    ),
    metadata=st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
)
def test_reads_whatever_safetensors_wrote(
    scratch: Path, arrays: dict[str, Any], metadata: dict[str, str]
) -> None:
    scratch.write_bytes(save(arrays, metadata))
    header = read_header(scratch)
    assert {name: tensor.shape for name, tensor in header.tensors.items()} == {
        name: array.shape for name, array in arrays.items()
    }
    assert header.metadata == metadata
    for name, tensor in header.tensors.items():
        assert np.dtype(NUMPY_DTYPES[tensor.dtype]) == arrays[name].dtype
        begin, end = (header.data_start + offset for offset in tensor.offsets)
        assert scratch.read_bytes()[begin:end] == np.ascontiguousarray(arrays[name]).tobytes()


def test_reads_torch_dtypes(scratch: Path) -> None:
    tensors = {
        "b": torch.zeros(3, dtype=torch.bfloat16),
        "f": torch.zeros(2, 2, dtype=torch.float8_e4m3fn),
        "c": torch.zeros((), dtype=torch.complex64),
    }
    scratch.write_bytes(save_torch(tensors))
    found = {name: tensor.dtype for name, tensor in read_header(scratch).tensors.items()}
    assert found == {"b": "BF16", "f": "F8_E4M3", "c": "C64"}


BASE = {
    "__metadata__": {"format": "pt"},
    "a": entry("F32", (2, 3), 0, 24),
    "b": entry("BF16", (4,), 24, 32),
    "c": entry("I8", (0, 7), 32, 32),
}
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-1, 40), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2),
    st.sampled_from(["F32", "F4", "F6_E2M3", "U64", "F8_E8M0", "XX"]),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid file with a few things wrong in the values, or a few bytes wrong anywhere."""
    header = json.loads(json.dumps(BASE))
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from([*header, "new", "\x1b[31m\u202e", "../../etc/passwd"]))
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets", "extra", None]))
        if field is None or not isinstance(header.get(name), dict):
            header[name] = draw(JUNK)
        else:
            header[name][field] = draw(JUNK)
    data = bytearray(raw(header, b"\0" * draw(st.sampled_from([32, 32, 31, 33, 0]))))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data) - 1))
        data[place : place + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@settings(max_examples=400, deadline=None)
@given(content=st.one_of(mutated(), st.binary(max_size=40)))
def test_mutants_are_refused_or_valid_to_safetensors_too(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(content)
    try:
        header = read_header(scratch)
    except LoadError:
        refusal(scratch)
        return
    with safe_open(scratch, framework="numpy") as file:
        assert set(file.keys()) == set(header.tensors)


F32 = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
FAULTS = {
    "empty": (b"", "empty"),
    "seven bytes": (b"1234567", "too few"),
    "header of 2^63 bytes": (struct.pack("<Q", 2**63), "9223372036854775808 bytes"),
    "header beyond the limit": (raw({}, length=MAX_HEADER + 1), f"at most {MAX_HEADER}"),
    "header beyond the file": (raw({}, length=3), "truncated"),
    "not an object": (raw(b"[1]"), "not a JSON object"),
    "space first": (raw(b" {}"), "not a JSON object"),
    "not JSON": (raw(b"{nope}"), "not valid JSON"),
    "not UTF-8": (raw(b'{"\xff": 1}'), "not UTF-8"),
    "trailing text": (raw(b"{} {}"), "not valid JSON"),
    "duplicate": (raw(b'{"a":' + F32 + b',"a":' + F32 + b"}", b"0000"), "'a' occurs twice"),
    "duplicate field": (
        raw(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"0000"),
        "'dtype' occurs twice",
    ),
    "deep": (raw(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "nested too deeply"),
    "huge integer": (raw(b'{"a":' + b"9" * 6_000 + b"}"), "out of range"),
    "NaN": (raw(b'{"a": NaN}'), "NaN is not JSON"),
    "unknown dtype": (raw({"a": entry("F99")}, b"0000"), "unknown dtype 'F99'"),
    "dtype that is no text": (raw({"a": {**entry(), "dtype": []}}, b"0000"), "unknown dtype"),
    "extra field": (raw({"a": {**entry(), "x": 1}}, b"0000"), "not described by"),
    "negative dimension": (raw({"a": entry(shape=(-1,))}, b"0000"), "invalid shape"),
    "boolean dimension": (raw({"a": entry(shape=(True,))}, b"0000"), "invalid shape"),
    "float dimension": (raw({"a": entry(shape=(1.0,))}, b"0000"), "invalid shape"),  # type: ignore[arg-type]
    "many dimensions": (raw({"a": entry(shape=(1,) * 33)}, b"0000"), "more than 32 dimensions"),
    "huge dimensions": (raw({"a": entry(shape=(2**63, 2**63, 0))}), "too large"),
    "three offsets": (raw({"a": {**entry(), "data_offsets": [0, 4, 4]}}, b"0000"), "data_offsets"),
    "offsets reversed": (raw({"a": entry(begin=4, end=0)}, b"0000"), "invalid data_offsets"),
    "size and shape differ": (raw({"a": entry(shape=(2,))}, b"0000"), "takes 8 bytes"),
    "half a byte": (raw({"a": entry("F4", (1,), 0, 1)}, b"0"), "takes 4 bits"),
    "overlap": (raw({"a": entry(), "b": entry(begin=0, end=4)}, b"00000000"), "overlaps"),
    "hole": (raw({"a": entry(), "b": entry(begin=8, end=12)}, b"0" * 12), "hole"),
    "hole at the start": (raw({"a": entry(begin=4, end=8)}, b"0" * 8), "hole"),
    "truncated data": (raw({"a": entry()}, b"000"), "truncated"),
    "bytes left over": (raw({"a": entry()}, b"00000"), "left over after the last tensor: 1"),
    "metadata no object": (raw({"__metadata__": [1]}), "__metadata__"),
    "metadata no text": (raw({"__metadata__": {"a": 1}}), "__metadata__"),
    "metadata no Unicode": (raw(b'{"__metadata__":{"a":"\\ud800"}}'), "not Unicode"),
    "lone surrogate": (raw(b'{"\\ud800":' + F32 + b"}", b"0000"), "not Unicode"),
    "endless name": (raw({"n" * 5_000: entry()}, b"0000"), "more than 1000 characters"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_one_clear_line(tmp_path: Path, name: str) -> None:
    content, expected = FAULTS[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert expected in refusal(path)
    if name not in STRICTER:
        with pytest.raises(SafetensorError), safe_open(path, framework="numpy"):
            pass


# What safetensors reads all the same.
STRICTER = {"space first", "duplicate", "extra field", "endless name", "many dimensions"}


HOSTILE_NAMES = {
    "colour": ("\x1b[31mred\x1b[0m", "\\x1b[31mred"),
    "window title": ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
    "eight-bit escape": ("\x9b31m", "\\x9b31m"),
    "new lines": ("a\r\nPASSED\u2028b", "a\\r\\nPASSED\\u2028b"),
    "backspaces": ("failed\b\b\b", "failed\\x08\\x08"),
    "right to left": ("\u202egnp.exe", "\\u202egnp.exe"),
    "isolates": ("\u2066a\u2069", "\\u2066a\\u2069"),
    "no width": ("fc\u200b\ufeff", "fc\\u200b\\ufeff"),
    "NUL": ("conv1\0.weight", "conv1\\x00.weight"),
    "tags": ("\U000e0041", "\\U000e0041"),
    "path": ("../../etc/passwd", "'../../etc/passwd'"),
    "home": ("~/.ssh/id_rsa", "'~/.ssh/id_rsa'"),
    "long": ("\x1b" + "x" * 900, "xxx...'"),
}


@pytest.mark.parametrize("kind", HOSTILE_NAMES)
def test_names_are_escaped_and_shortened(tmp_path: Path, kind: str) -> None:
    name, shown = HOSTILE_NAMES[kind]
    path = tmp_path / "model.safetensors"
    twice = f"{{{json.dumps(name)}:1,{json.dumps(name)}:1}}".encode()
    for header in ({name: entry("nope\n")}, {name: [1]}, {name: entry(begin=4, end=8)}, twice):
        write(path, header, b"0000")
        assert shown in refusal(path)


def test_control_characters_as_they_are_make_no_json(tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", b'{"\x1b[31m":' + F32 + b"}", b"0000")
    assert "not valid JSON" in refusal(path)


def test_plain_names_are_shown_as_they_are() -> None:
    assert quoted("é ü") == "é ü"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "model.safetensors"
    os.mkfifo(pipe)
    with pytest.raises(LoadError, match="not a regular file"):
        read_header(pipe)


def test_missing_and_unreadable_paths(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be read"):
        read_header("nul\0.safetensors")
    with pytest.raises(LoadError, match="cannot be read"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(LoadError, match="not a regular file"):
        read_header(tmp_path)


def peak_memory(call: Callable[[], object]) -> int:
    """Return the most bytes that a call had allocated at any time."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", SWELLING)
def test_parsing_takes_no_more_memory_than_foreseen(kind: str) -> None:
    # The most for one name: a dict makes its table the largest, compared to what it holds.
    content = swollen(kind, 21_846)

    def parse() -> None:
        with contextlib.suppress(ValueError):
            strict_json(content.decode())

    with pytest.raises(ValueError, match="memory"):
        check_structure(content, peak_memory(parse))


@pytest.mark.parametrize("kind", SWELLING)
def test_headers_of_the_greatest_length_take_little_memory(tmp_path: Path, kind: str) -> None:
    per_value = len(swollen(kind, 20_000)) / 20_000
    content = raw(swollen(kind, int(MAX_HEADER / per_value * 0.99)))
    assert len(content) > 0.9 * MAX_HEADER
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    started = time.monotonic()
    assert peak_memory(lambda: refusal(path)) <= len(content) + SPARE
    assert time.monotonic() - started < 2


def test_as_many_tensors_as_allowed_are_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(many_tensors(MAX_TENSORS))
    headers = []
    assert peak_memory(lambda: headers.append(read_header(path))) <= path.stat().st_size + SPARE
    assert len(headers[0].tensors) == MAX_TENSORS


@pytest.mark.parametrize(
    "count, fault",
    [(MAX_TENSORS + 1, "more than 20000 tensors"), (50_000, "tensors"), (10**6, "header of")],
)
def test_too_many_tensors_are_refused_at_once(tmp_path: Path, count: int, fault: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(many_tensors(count))
    started = time.monotonic()
    assert peak_memory(lambda: refusal(path)) <= 2 * MAX_HEADER
    assert time.monotonic() - started < 2
    assert fault in refusal(path)


@pytest.mark.parametrize("length", [100_000_000, 2**30 - 8, 2**30, 2**63])
def test_huge_headers_are_refused_unread(tmp_path: Path, length: int) -> None:
    path = write(tmp_path / "model.safetensors", b"{" + b" " * 10**6, length=length)
    os.truncate(path, 2**30)
    assert peak_memory(lambda: refusal(path)) < 10**6
    assert f"{length} bytes" in refusal(path)


def test_nothing_here_imports_torch() -> None:
    modules = "header, files, spec, match, identify"
    code = (
        f"import sys; from encodercheck.weights import {modules}; assert 'torch' not in sys.modules"
    )
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=root)
