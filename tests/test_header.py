import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import entry, raw, write
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from safetensors.torch import save as save_torch

from encodercheck.errors import LoadError
from encodercheck.weights.header import quoted, read_header

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
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ARRAYS = st.sampled_from(sorted(NUMPY_DTYPES)).flatmap(
    lambda name: hnp.arrays(
        NUMPY_DTYPES[name], hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    )
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("header") / "model.safetensors"


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
        name = draw(st.sampled_from([*header, "new"]))
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets", "extra", None]))
        if field is None or not isinstance(header.get(name), dict):
            header[name] = draw(JUNK)
        else:
            header[name][field] = draw(JUNK)
    data = bytearray(raw(header, b"\0" * draw(st.sampled_from([32, 32, 31, 33, 0]))))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data) - 1))
        data[place] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@settings(max_examples=400, deadline=None)
@given(content=st.one_of(mutated(), st.binary(max_size=40)))
def test_mutants_are_refused_or_valid_to_safetensors_too(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(content)
    try:
        header = read_header(scratch)
    except LoadError as error:
        message = str(error)
        assert message.startswith(str(scratch))
        assert message.isprintable()
        return
    with safe_open(scratch, framework="numpy") as file:
        assert set(file.keys()) == set(header.tensors)


F32 = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
FAULTS = {
    "empty": (b"", "empty"),
    "seven bytes": (b"1234567", "too few"),
    "header of 2^63 bytes": (struct.pack("<Q", 2**63), "9223372036854775808 bytes"),
    "header beyond the limit": (raw({}, length=100_000_001), "at most 100000000"),
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
    "lone surrogate": (raw(b'{"\\ud800":' + F32 + b"}", b"0000"), "not Unicode"),
    "endless name": (raw({"n" * 5_000: entry()}, b"0000"), "more than 1000 characters"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_one_clear_line(tmp_path: Path, name: str) -> None:
    content, expected = FAULTS[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(LoadError) as caught:
        read_header(path)
    message = str(caught.value)
    assert expected in message
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert len(message) < len(str(path)) + 300
    if name not in STRICTER:
        with pytest.raises(SafetensorError), safe_open(path, framework="numpy"):
            pass


# What safetensors reads all the same.
STRICTER = {"space first", "duplicate", "extra field", "endless name"}


def test_names_are_escaped_and_shortened(tmp_path: Path) -> None:
    name = "\x1b[31m\n‮" + "x" * 500
    path = write(tmp_path / "model.safetensors", {name: entry("nope\n")}, b"0000")
    with pytest.raises(LoadError) as caught:
        read_header(path)
    message = str(caught.value)
    assert "\\x1b[31m\\n\\u202e" in message
    assert message.isprintable()
    assert len(message) < len(str(path)) + 300
    assert quoted("é ü") == "é ü"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "model.safetensors"
    os.mkfifo(pipe)
    with pytest.raises(LoadError, match="not a regular file"):
        read_header(pipe)


def test_missing_and_unreadable_paths(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be read"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(LoadError, match="not a regular file"):
        read_header(tmp_path)


def test_nothing_here_imports_torch() -> None:
    modules = "header, files, spec, match, identify"
    code = (
        f"import sys; from encodercheck.weights import {modules}; assert 'torch' not in sys.modules"
    )
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=root)
