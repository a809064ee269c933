"""Mutated .safetensors headers against the reader, which must accept or refuse each one cleanly.

    python -m benchmarks.fuzz [--headers 100000] [--seed 0] [--jobs 1]

Every mutant comes from a small valid file by one kind of mutation, applied once or several times.
It is written to a file and read. Reading must end within a second, in a header that safetensors
accepts too, or in a LoadError of one printable line that names the file and the fault. On a sample
of the mutants, the memory that reading takes is measured, and accepted files are inspected, which
looks for an encoder in them. Whatever else happens is a defect: the file is kept, and the exit
status is 1. Writes docs/fuzz.json and docs/fuzz.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import math
import multiprocessing
import platform
import random
import re
import signal
import struct
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from encodercheck.cache import atomic_write_text
from encodercheck.errors import EncoderCheckError, LoadError
from encodercheck.weights.header import DTYPE_BITS, MAX_HEADER, read_header

ROOT = Path(__file__).parents[1]
SPARE = 64_000_000
SLOW = 1.0
HANGING = 30
LONGEST_MESSAGE = 300
CHUNK = 250
MEASURED = 1 / 50
INSPECTED = 1 / 20
BOMBS = 1 / 100
LARGEST = MAX_HEADER + 2**20

# What a refusal may say; the first that a message contains is its class.
FAULTS = (
    "the file is empty",
    "too few for a header",
    "truncated: it declares a header",
    "it declares a header of",
    "the header is not a JSON object",
    "describes more than",
    "the header is too large",
    "the header is not UTF-8",
    "the header is not valid JSON",
    "occurs twice",
    "is out of range",
    "is not JSON",
    "nested too deeply",
    "__metadata__ is not an object of strings",
    "__metadata__ holds what is not Unicode",
    "has a name of more than",
    "has a name that is not Unicode",
    "is not described by dtype, shape and data_offsets",
    "has the unknown dtype",
    "has an invalid shape",
    "has a shape of more than",
    "has invalid data_offsets",
    "has a shape too large",
    "by its data_offsets",
    "overlaps another tensor",
    "follows a hole",
    "truncated: the tensors take",
    "bytes left over",
)

Header = dict[str, Any]
Random = random.Random


# The seeds: small files with the names and shapes of real encoders.


@dataclass(frozen=True)
class Seed:
    """A valid file: its header, and as many zeros as it describes."""

    header: Header
    size: int

    def text(self) -> str:
        """Return the header's JSON, as safetensors writes it."""
        return json.dumps(self.header, separators=(",", ":"), ensure_ascii=False)


def seeds() -> list[Seed]:
    stem = {"stem_kernel": 3, "stem_stride": 1, "maxpool": False}
    about = {
        "architecture": {"block": "basic", "depths": [2, 2], "widths": [2, 4]} | stem,
        "image_size": 32,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    }
    sharded = {f"model.layers.{n}.mlp.down_proj.weight": (2, 3) for n in range(12)}
    return [
        seed(resnet("")),
        seed(resnet("module.encoder_q.") | {"queue": (2, 8), "queue_ptr": (1,)}),
        seed(resnet("backbone."), metadata={"encodercheck": json.dumps(about)}),
        seed(vit(), "F16", {"format": "pt"}),
        seed(clip(), "BF16", {"format": "pt", "über": "ein ‘Autor’ 😀"}),
        seed(sharded, "F8_E4M3", {"format": "pt"}),
        seed({"empty": (0, 7), "scalar": (), "none": (0,), "one": (1, 1, 1, 1)}, "I64"),
        every_dtype(),
    ]


def seed(
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str = "F32",
    metadata: Mapping[str, str] | None = None,
) -> Seed:
    header: Header = {"__metadata__": dict(metadata)} if metadata else {}
    reached = 0
    for name, shape in shapes.items():
        end = reached + math.prod(shape) * DTYPE_BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [reached, end]}
        reached = end
    return Seed(header, reached)


def every_dtype() -> Seed:
    header: Header = {}
    for position, (dtype, bits) in enumerate(DTYPE_BITS.items()):
        offsets = [sum(list(DTYPE_BITS.values())[:place]) for place in (position, position + 1)]
        header[f"a.{dtype}"] = {"dtype": dtype, "shape": [2, 4], "data_offsets": offsets}
        assert offsets[1] - offsets[0] == bits
    return Seed(header, sum(DTYPE_BITS.values()))


def resnet(prefix: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (2, 3, 3, 3)} | norm("bn1", 2)
    for stage, width in ((1, 2), (2, 4)):
        for block, unit in itertools.product(range(2), (1, 2)):
            name = f"layer{stage}.{block}"
            first = stage == 2 and block == 0
            inputs = width // 2 if first and unit == 1 else width
            shapes[f"{name}.conv{unit}.weight"] = (width, inputs, 3, 3)
            shapes |= norm(f"{name}.bn{unit}", width)
            if first and unit == 2:
                shapes[f"{name}.downsample.0.weight"] = (width, width // 2, 1, 1)
                shapes |= norm(f"{name}.downsample.1", width)
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{kind}": (width,) for kind in kinds}


def vit() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, 4),
        "pos_embed": (1, 5, 4),
        "patch_embed.proj.weight": (4, 3, 2, 2),
        "patch_embed.proj.bias": (4,),
        "norm.weight": (4,),
        "norm.bias": (4,),
        "head.weight": (2, 4),
    }
    for block in range(3):
        shapes |= linear(f"blocks.{block}.attn.qkv", 12) | linear(f"blocks.{block}.attn.proj", 4)
        shapes |= linear(f"blocks.{block}.mlp.fc1", 4) | {f"blocks.{block}.norm1.weight": (4,)}
    return shapes


def clip() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (4,),
        "visual.conv1.weight": (4, 3, 2, 2),
        "visual.proj": (4, 2),
        "token_embedding.weight": (9, 4),
        "text_projection": (4, 2),
        "logit_scale": (),
    }
    for tower, block in itertools.product(("visual.transformer", "transformer"), range(2)):
        name = f"{tower}.resblocks.{block}"
        shapes |= linear(f"{name}.attn.out_proj", 4) | linear(f"{name}.mlp.c_fc", 8)
    return shapes


def linear(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width, 4), f"{name}.bias": (width,)}


# Mutations of the header's values.

INTERESTING = (
    *(0, 1, 2, 3, 4, 7, 8, 9, 255, 256, 4095, 65535, 65536, 99_999_999, 100_000_001),
    *(-1, -(2**31), -(2**63), -(2**70)),
    *(2**power + step for power in (23, 31, 32, 53, 57, 60, 63, 64, 70) for step in (-1, 0, 1)),
)
NAMES = (
    *("", "a", "weight", "conv1.weight", "__metadata__", "dtype", "data_offsets", "layer1.0.conv1"),
    *("../../etc/passwd", "/etc/passwd", "C:\\x", "~", "a/b", "%s%n", "{0}", "$(id)", "'", '"'),
    *("\x00", "\x1b[31m", "\x1b]0;t\x07", "\r\n", "\x9b1m", "\u202e", "\u2028", "\ufeff", "\ud800"),
    *("é", "名前", "😀", "\U000e0041", "x" * 999, "x" * 1001, "[red]", "fixture:clean", "-o"),
)
JUNK: tuple[Any, ...] = (
    *(None, True, False, 1.0, -0.0, 1e308, float("nan"), float("inf"), "", "F32", [], {}, [[]]),
    *([1], [0, 4], [4, 0], ["0", "4"], [1.0], [True], [None], {"dtype": "F32"}, {"a": {"b": []}}),
)


def junk(rng: Random) -> Any:
    return rng.choice((*JUNK, rng.choice(INTERESTING), rng.choice(NAMES)))


def entry_of(rng: Random, header: Header) -> Header:
    """Return one tensor's entry, to be changed in place; another where no tensor is left."""
    entries = [value for name, value in header.items() if name != "__metadata__"]
    return rng.choice([value for value in entries if isinstance(value, dict)] or [{}])


def numbers_of(rng: Random, header: Header, key: str) -> list[Any]:
    values = entry_of(rng, header).get(key)
    return values if isinstance(values, list) else []


def replace_value(rng: Random, header: Header) -> None:
    header[rng.choice([*header, "new"])] = junk(rng)


def replace_field(rng: Random, header: Header) -> None:
    entry_of(rng, header)[rng.choice(["dtype", "shape", "data_offsets", "new"])] = junk(rng)


def drop_field(rng: Random, header: Header) -> None:
    entry = entry_of(rng, header)
    if entry:
        del entry[rng.choice(list(entry))]


def change_dtype(rng: Random, header: Header) -> None:
    entry_of(rng, header)["dtype"] = rng.choice([*DTYPE_BITS, "f32", "F32\n", "F128", "\x1b[1m"])


def change_dimension(rng: Random, header: Header) -> None:
    shape = numbers_of(rng, header, "shape")
    if shape:
        shape[rng.randrange(len(shape))] = rng.choice(INTERESTING)


def reshape(rng: Random, header: Header) -> None:
    """Change a shape to one of as many elements, or nearly."""
    shape = numbers_of(rng, header, "shape")
    rng.shuffle(shape)
    shape += [1] * rng.choice([0, 1, 5, 28, 40, 500])
    if rng.random() < 0.3:
        shape += [rng.choice((0, 2**32, 2**63))] * rng.choice([1, 2, 9])


def change_offset(rng: Random, header: Header) -> None:
    offsets = numbers_of(rng, header, "data_offsets")
    if offsets:
        place = rng.randrange(len(offsets))
        near = [offsets[place] + step for step in (-4, -1, 1, 4) if type(offsets[place]) is int]
        offsets[place] = rng.choice([*near, rng.choice(INTERESTING)])


def shift(rng: Random, header: Header) -> None:
    """Move a tensor to somewhere else in the data, perhaps onto another."""
    offsets, by = numbers_of(rng, header, "data_offsets"), rng.choice([-8, -4, 4, 2**32, 2**63])
    offsets[:] = [value + by if type(value) is int else value for value in offsets]


def swap_entries(rng: Random, header: Header) -> None:
    names = list(header)
    if names:
        first, second = rng.choice(names), rng.choice(names)
        header[first], header[second] = header[second], header[first]


def rename(rng: Random, header: Header) -> None:
    if header:
        name = rng.choice(list(header))
        hostile = rng.choice(NAMES)
        header[rng.choice([hostile, hostile + name, name + hostile])] = header.pop(name)


def drop_tensor(rng: Random, header: Header) -> None:
    if header:
        # The last one leaves no hole.
        del header[rng.choice([rng.choice(list(header)), list(header)[-1]])]


def add_tensor(rng: Random, header: Header) -> None:
    end = max((end_of(entry) for entry in header.values()), default=0)
    size = rng.choice([0, 1, 4])
    header[rng.choice(NAMES)] = {
        "dtype": rng.choice(["U8", "F32", "F8_E4M3"]),
        "shape": [size],
        "data_offsets": [end, end + size],
    }


def reorder(rng: Random, header: Header) -> None:
    items = list(header.items())
    rng.shuffle(items)
    header.clear()
    header.update(items)


def change_metadata(rng: Random, header: Header) -> None:
    metadata = header.setdefault("__metadata__", {})
    if isinstance(metadata, dict):
        key = rng.choice([*metadata, "encodercheck", rng.choice(NAMES)])
        text = metadata.get(key, "")
        worse = [cut(rng, text), rng.choice(NAMES), junk(rng)] if isinstance(text, str) else [1]
        metadata[key] = rng.choice(worse)


def cut(rng: Random, text: str) -> str:
    return text[: rng.randint(0, len(text))]


def end_of(entry: Any) -> int:
    """Return where an entry's data end, if it says so at all and it is near."""
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    end = offsets[-1] if isinstance(offsets, list) and offsets else 0
    return end if type(end) is int and 0 < end < 2**16 else 0


# Mutations of the tokens of its JSON.

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+|[][{},:]|[^][{},:"]+|"')
TOKENS = (
    *("[", "]", "{", "}", ",", ":", "null", "true", "NaN", "-Infinity", "1e999", "-0", "00", "1.5"),
    *("9" * 30, "9" * 5_000, "0." + "9" * 5_000, "[" * 50, "[" * 2_000, '{"a":' * 2_000, "[[]]"),
    *('"\\ud800"', '"\\u0000"', '"\\x"', '"\x1b"', '"', "'a'", "/**/", "\ufeff", " " * 999, "\n"),
)


def replace_token(rng: Random, tokens: list[str]) -> None:
    tokens[rng.randrange(len(tokens))] = rng.choice(TOKENS)


def insert_token(rng: Random, tokens: list[str]) -> None:
    tokens.insert(rng.randint(0, len(tokens)), rng.choice([*TOKENS, rng.choice(tokens)]))


def delete_token(rng: Random, tokens: list[str]) -> None:
    if len(tokens) > 1:
        del tokens[rng.randrange(len(tokens))]


def swap_tokens(rng: Random, tokens: list[str]) -> None:
    first, second = rng.randrange(len(tokens)), rng.randrange(len(tokens))
    tokens[first], tokens[second] = tokens[second], tokens[first]


def repeat_name(rng: Random, tokens: list[str]) -> None:
    """Give one member the name of another; the first ones are in the same object."""
    names = [place for place in range(len(tokens) - 1) if tokens[place + 1] == ":"]
    if names:
        tokens[rng.choice(names)] = tokens[rng.choice(names)]


def nest(rng: Random, tokens: list[str]) -> None:
    place, depth = rng.randrange(len(tokens)), rng.choice([1, 2, 100, 2_000])
    opened, closed = rng.choice([("[", "]"), ('{"a":', "}")])
    tokens[place] = opened * depth + tokens[place] + closed * depth


def control_character(rng: Random, tokens: list[str]) -> None:
    """Put one into a string, as it is or escaped."""
    strings = [place for place, token in enumerate(tokens) if token.startswith('"')]
    if strings:
        place, mark = rng.choice(strings), chr(rng.choice([*range(32), 127, 155, 0x202E]))
        escaped = rng.choice([mark, json.dumps(mark)[1:-1]])
        at = rng.randint(1, max(1, len(tokens[place]) - 1))
        tokens[place] = tokens[place][:at] + escaped + tokens[place][at:]


def escape(rng: Random, tokens: list[str]) -> None:
    """Write every string in another of JSON's ways."""
    for place, token in enumerate(tokens):
        if token.startswith('"') and "\\" not in token and rng.random() < 0.5:
            escaped = "".join(
                f"\\u{ord(mark):04x}" if ord(mark) < 2**16 else mark for mark in token
            )
            tokens[place] = f'"{escaped[6:-6]}"'


def add_spaces(rng: Random, tokens: list[str]) -> None:
    for place in range(1, len(tokens)):
        if rng.random() < 0.3:
            tokens[place] += rng.choice([" ", "\n", "\t", "\r\n  "])


# Mutations of its bytes.

BYTES = b'{}[]",:\\0-9eEu\x00\x01\x1b\x7f\x80\xbf\xc0\xed\xf0\xff \n'


def flip(rng: Random, raw: bytearray) -> None:
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)


def put_byte(rng: Random, raw: bytearray) -> None:
    raw[rng.randrange(len(raw))] = rng.choice(BYTES)


def insert_bytes(rng: Random, raw: bytearray) -> None:
    place = rng.randint(0, len(raw))
    raw[place:place] = rng.randbytes(rng.choice([1, 1, 2, 8]))


def delete_bytes(rng: Random, raw: bytearray) -> None:
    start, end = span(rng, raw)
    if end - start < len(raw):
        del raw[start:end]


def repeat_bytes(rng: Random, raw: bytearray) -> None:
    start, end = span(rng, raw)
    place = rng.choice([start, rng.randint(0, len(raw))])
    raw[place:place] = raw[start:end] * rng.choice([1, 1, 2, 30])


def span(rng: Random, raw: bytearray) -> tuple[int, int]:
    start = rng.randrange(len(raw))
    return start, min(len(raw), start + rng.choice([1, 2, 8, 50, 500]))


# Mutations of the whole file.


def truncate(rng: Random, file: bytes, _: bytes) -> bytes:
    return file[: rng.choice([rng.randint(0, len(file)), rng.randint(0, 20), len(file) - 1])]


def extend(rng: Random, file: bytes, _: bytes) -> bytes:
    return file + b"\0" * rng.choice([1, 4, 1000])


def splice(rng: Random, file: bytes, other: bytes) -> bytes:
    return file[: rng.randint(0, len(file))] + other[rng.randint(0, len(other)) :]


def splice_headers(rng: Random, file: bytes, other: bytes) -> bytes:
    """Cross two headers, with the length that the result has."""
    texts = [whole[8 : 8 + int.from_bytes(whole[:8], "little")] for whole in (file, other)]
    spliced = splice(rng, *texts)
    return struct.pack("<Q", len(spliced)) + spliced + file[8 + len(texts[0]) :]


def change_length(rng: Random, file: bytes, _: bytes) -> bytes:
    length = int.from_bytes(file[:8], "little")
    near = length + rng.choice([-8, -1, 1, 8])
    return struct.pack("<Q", rng.choice([near, rng.choice(INTERESTING)]) % 2**64) + file[8:]


def garbage(rng: Random, file: bytes, _: bytes) -> bytes:
    """Random bytes, after a length that fits them, or not."""
    noise = rng.randbytes(rng.randint(0, 200))
    return rng.choice([noise, struct.pack("<Q", len(noise)) + noise])


# By the sign that they may follow.
FRAGMENTS = {
    "[": (
        *("[],", "{},", '{"a":1},', "[[[]]],", "[999],", "999,", "1.5,", "null,", "[", " "),
        *('"a",', '"é",', '"😀",', '"%d",', '"%d😀",', '{"%d":{"%d":{}}},'),
    ),
    "{": (
        *('"%d":1,', '"%d":[],', '"%d":{},', '"%d":"%d",', '"%d":{"a":1},', '"%d😀":"😀",'),
        *('"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},', '"a":1,', '"a":{', " "),
    ),
    '"': ("a", "é", "😀", "\\n", "\\u0041", "\\ud83d\\ude00", "a\\n", "\\\\\\", ",[{:", " "),
}


def bomb(rng: Random, text: str) -> str:
    """Repeat a fragment somewhere in a header, up to beyond the greatest length."""
    sign = rng.choice(list(FRAGMENTS))
    fragment = rng.choice(FRAGMENTS[sign])
    places = [place + 1 for place, mark in enumerate(text[:500]) if mark == sign]
    place = rng.choice([1, *places])
    size = math.exp(rng.uniform(math.log(1_000), math.log(LARGEST)))
    count = int(size / len(fragment.replace("%d", "12345").encode()))
    numbered = (fragment.replace("%d", str(number)) for number in range(count))
    repeated = "".join(numbered) if "%d" in fragment else fragment * count
    return text[:place] + repeated + text[place:]


TREE: Mapping[str, Callable[[Random, Header], None]] = {
    "replace a value": replace_value,
    "replace a field": replace_field,
    "drop a field": drop_field,
    "change a dtype": change_dtype,
    "change a dimension": change_dimension,
    "reshape": reshape,
    "change an offset": change_offset,
    "shift a tensor": shift,
    "swap two entries": swap_entries,
    "rename": rename,
    "drop a tensor": drop_tensor,
    "add a tensor": add_tensor,
    "reorder": reorder,
    "change the metadata": change_metadata,
}
TEXT: Mapping[str, Callable[[Random, list[str]], None]] = {
    "replace a token": replace_token,
    "insert a token": insert_token,
    "delete a token": delete_token,
    "swap two tokens": swap_tokens,
    "repeat a name": repeat_name,
    "nest a token": nest,
    "add a control character": control_character,
    "escape strings": escape,
    "add spaces": add_spaces,
}
RAW: Mapping[str, Callable[[Random, bytearray], None]] = {
    "flip a bit": flip,
    "replace a byte": put_byte,
    "insert bytes": insert_bytes,
    "delete bytes": delete_bytes,
    "repeat bytes": repeat_bytes,
}
WHOLE: Mapping[str, Callable[[Random, bytes, bytes], bytes]] = {
    "truncate": truncate,
    "extend": extend,
    "splice two files": splice,
    "splice two headers": splice_headers,
    "change the length": change_length,
    "garbage": garbage,
}
BOMB = "repeat a fragment"
KINDS = (*TREE, *TEXT, *RAW, *WHOLE)


def mutant(rng: Random, corpus: list[Seed]) -> tuple[str, bytes]:
    """Return a kind of mutation and a file that it made."""
    origin, other = rng.choice(corpus), rng.choice(corpus)
    times = rng.choice([1, 1, 1, 2, 3])
    kind = BOMB if rng.random() < BOMBS else rng.choice(KINDS)
    if kind in TREE:
        return kind, mutated_tree(rng, origin, TREE[kind], times)
    if kind in TEXT:
        tokens = TOKEN.findall(origin.text())
        for _ in range(times):
            TEXT[kind](rng, tokens)
        return kind, assembled("".join(tokens), origin.size)
    if kind in RAW:
        raw = bytearray(origin.text().encode())
        for _ in range(times):
            RAW[kind](rng, raw)
        return kind, assembled(bytes(raw), origin.size)
    if kind == BOMB:
        return kind, assembled(bomb(rng, origin.text()), origin.size)
    files = (assembled(part.text(), part.size) for part in (origin, other))
    return kind, WHOLE[kind](rng, *files)


def mutated_tree(
    rng: Random, origin: Seed, mutate: Callable[[Random, Header], None], times: int
) -> bytes:
    header = json.loads(json.dumps(origin.header))
    for _ in range(times):
        mutate(rng, header)
    # With the data that the header asks for now, or those that were there.
    asked = max((end_of(entry) for entry in header.values()), default=0)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=rng.random() < 0.5)
    return assembled(text, rng.choice([origin.size, asked]))


def assembled(text: str | bytes, size: int) -> bytes:
    """Return a file with this header, padded as safetensors does, and ``size`` zeros."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + b"\0" * size


# What reading them does.


class Hanging(BaseException):
    """Reading a file took too long; no `except Exception` stops it."""


@dataclass
class Trial:
    """How the reader took one mutant; ``defect`` is empty unless something is wrong."""

    number: int
    kind: str
    size: int
    fault: str = ""
    defect: str = ""
    stricter: bool = False
    seconds: float = 0.0
    peak: int | None = None
    growth: int | None = None
    inspected: str = ""


def tried(number: int, kind: str, path: Path, size: int, rng: Random) -> Trial:
    """Read one file, and judge what happens."""
    trial = Trial(number, kind, size)
    signal.setitimer(signal.ITIMER_REAL, HANGING)
    try:
        started = time.process_time()
        found = examine(path)
        trial.seconds = time.process_time() - started
        judge(trial, found, path)
        if kind == BOMB or rng.random() < MEASURED:
            trial.peak, trial.growth = peak_memory(path), growth_of_process(path)
        if not trial.fault and rng.random() < INSPECTED:
            inspect(trial, path)
    except (Exception, Hanging) as error:
        trial.defect = f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if trial.seconds > SLOW:
        trial.defect = f"took {trial.seconds:.1f} seconds"
    most = max(trial.peak or 0, trial.growth or 0)
    if most > size + SPARE:
        trial.defect = f"took {most} bytes of memory for a file of {size}"
    return trial


def examine(path: Path) -> set[str] | str:
    """Return the names of a file's tensors, or the message with which it is refused."""
    try:
        return set(read_header(path).tensors)
    except LoadError as error:
        return str(error)


def judge(trial: Trial, found: set[str] | str, path: Path) -> None:
    """Compare with safetensors, and see that a message is what the user needs."""
    expected = names_by_safetensors(path)
    if not isinstance(found, str):
        if found != expected:
            trial.defect = "accepted, but not by safetensors, or with other tensors"
        return
    trial.stricter = expected is not None
    trial.fault = next((fault for fault in FAULTS if fault in found), "")
    if not trial.fault:
        trial.defect = f"names no known fault: {found!r}"
    trial.defect = trial.defect or wrong_with(found, path)


def wrong_with(message: str, path: Path) -> str:
    if not message.isprintable():
        return f"unprintable message: {message!r}"
    if not message.startswith(f"{path}: "):
        return f"message without the path: {message!r}"
    if len(message) > len(str(path)) + LONGEST_MESSAGE:
        return f"endless message: {message!r}"
    return ""


def names_by_safetensors(path: Path) -> set[str] | None:
    """Return the names of the tensors that safetensors reads; None where it refuses the file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return set(file.keys())
    except (SafetensorError, OSError):
        return None


def inspect(trial: Trial, path: Path) -> None:
    """Find out which encoder it is, as far as that goes without its weights."""
    from encodercheck.loading import inspect as inspect_file

    try:
        inspect_file(path)
    except EncoderCheckError as error:
        trial.inspected = "refused"
        message = str(error)
        if not message.isprintable() or len(message) > len(str(path)) + 4 * LONGEST_MESSAGE:
            trial.defect = f"message on inspection: {message!r}"
    else:
        trial.inspected = "identified"


def peak_memory(path: Path) -> int:
    """Return the most bytes that Python had allocated while it read a file."""
    tracemalloc.start()
    try:
        examine(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def growth_of_process(path: Path) -> int | None:
    """Return by how much the process grew at most meanwhile; None where the system cannot tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = occupied("VmRSS")
    examine(path)
    return max(0, occupied("VmHWM") - before)


def occupied(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{key}:")[2].split()[0])


# The run.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--headers", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "fuzz")
    parser.add_argument("--defects", type=Path, default=Path(tempfile.gettempdir(), "fuzz-defects"))
    options = parser.parse_args()
    trials: list[Trial] = []
    for done in chunks(options):
        trials += done
        print(f"\r{len(trials)} of {options.headers}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    results = summary(trials, options.seed)
    atomic_write_text(options.out.with_suffix(".json"), json.dumps(results, indent=1) + "\n")
    atomic_write_text(options.out.with_suffix(".md"), page(results))
    for trial in results["defects"]:
        print(f"defect {trial['number']} ({trial['kind']}): {trial['defect']}")
    print(f"{len(results['defects'])} defects among {len(trials)} headers")
    if results["defects"]:
        sys.exit(f"the files are in {options.defects}")


def chunks(options: argparse.Namespace) -> Iterator[list[Trial]]:
    """Yield the trials in order, a few at a time."""
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        ProcessPoolExecutor(
            options.jobs, multiprocessing.get_context("spawn"), prepare, (Path(folder),)
        ) as pool,
    ):
        starts = range(0, options.headers, CHUNK)
        tasks = [
            pool.submit(
                chunk,
                options.seed,
                range(start, min(start + CHUNK, options.headers)),
                Path(folder),
                options.defects,
            )
            for start in starts
        ]
        for task in tasks:
            yield task.result()


def prepare(folder: Path) -> None:
    """Make a process ready: what it loads now is not counted later."""

    def give_up(*_: object) -> None:
        raise Hanging(f"did not end within {HANGING} seconds")

    signal.signal(signal.SIGALRM, give_up)
    path = file_of(folder)
    for origin in seeds():
        path.write_bytes(assembled(origin.text(), origin.size))
        assert examine(path) == names_by_safetensors(path)
        inspect(Trial(0, "", 0), path)


def chunk(run: int, numbers: Iterable[int], folder: Path, defects: Path) -> list[Trial]:
    """Try the mutants of these numbers; each depends on the run's seed and its own number only."""
    corpus, path, trials = seeds(), file_of(folder), []
    for number in numbers:
        rng = Random(f"{run}/{number}")
        kind, content = mutant(rng, corpus)
        path.write_bytes(content)
        trials.append(tried(number, kind, path, len(content), rng))
        if trials[-1].defect:
            defects.mkdir(parents=True, exist_ok=True)
            (defects / f"{run}-{number}.safetensors").write_bytes(content)
    return trials


def file_of(folder: Path) -> Path:
    return folder / f"{multiprocessing.current_process().name}.safetensors"


# What the documents say.


def summary(trials: list[Trial], run: int) -> dict[str, Any]:
    kinds = {kind: counted(trial for trial in trials if trial.kind == kind) for kind in KINDS}
    kinds[BOMB] = counted(trial for trial in trials if trial.kind == BOMB)
    measured = [trial for trial in trials if trial.peak is not None]
    slowest = max(trials, key=lambda trial: trial.seconds)
    packages = ("encodercheck", "safetensors", "numpy", "torch")
    return {
        "headers": len(trials),
        "seed": run,
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in packages},
        "total": counted(trials),
        "kinds": kinds,
        "faults": dict(Counter(trial.fault for trial in trials if trial.fault).most_common()),
        "stricter": dict(Counter(trial.fault for trial in trials if trial.stricter).most_common()),
        "inspected": dict(Counter(trial.inspected for trial in trials if trial.inspected)),
        "slowest": {"seconds": round(slowest.seconds, 3), "kind": slowest.kind},
        "memory": {
            "measured": len(measured),
            "largest_file": max((trial.size for trial in measured), default=0),
            "most": max((trial.peak or 0 for trial in measured), default=0),
            "most_beyond_file": max((beyond(trial) for trial in measured), default=0),
            "growth_of_process": max((trial.growth or 0 for trial in measured), default=0),
        },
        "defects": [asdict(trial) for trial in trials if trial.defect],
    }


def beyond(trial: Trial) -> int:
    """Return how much memory a file took beyond its own size."""
    return max(0, (trial.peak or 0) - trial.size)


def counted(trials: Iterable[Trial]) -> dict[str, int]:
    outcomes = Counter(
        "defects" if trial.defect else "refused" if trial.fault else "accepted" for trial in trials
    )
    return {outcome: outcomes[outcome] for outcome in ("accepted", "refused", "defects")}


def page(results: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    total, memory = results["total"], results["memory"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    kinds = [(kind, *counts.values()) for kind, counts in results["kinds"].items()]
    faults = [
        (fault, count, results["stricter"].get(fault, 0))
        for fault, count in results["faults"].items()
    ]
    inspected = results["inspected"]
    lines = [
        "# Fuzzing the header reader",
        "",
        f"Made by `python -m benchmarks.fuzz --headers {results['headers']} "
        f"--seed {results['seed']}`; {versions}.",
        "",
        f"Of {results['headers']} mutated .safetensors headers, {total['accepted']} were accepted, "
        f"{total['refused']} refused with one line that names the fault, and {total['defects']} "
        "were defects: another exception, a line that cannot be printed safely, more than "
        f"{SLOW:g} second, more memory than the file's size and {SPARE // 10**6} MB, or a file "
        "accepted that safetensors refuses.",
        "",
        f"The slowest took {results['slowest']['seconds']} s of CPU "
        f"({results['slowest']['kind']}). Memory was measured on {memory['measured']}, of files up "
        f"to {megabytes(memory['largest_file'])}: Python allocated {megabytes(memory['most'])} at "
        f"most, {megabytes(memory['most_beyond_file'])} at most beyond the file's size, and the "
        f"process grew by {megabytes(memory['growth_of_process'])} at most. "
        f"{sum(inspected.values())} of the accepted ones were inspected further: "
        f"{inspected.get('identified', 0)} were still encoders, and {inspected.get('refused', 0)} "
        "were refused.",
        "",
        "## By mutation",
        "",
        *rows(("mutation", "accepted", "refused", "defects"), kinds),
        "",
        "## By fault",
        "",
        "The last column counts those that safetensors opens all the same.",
        "",
        *rows(("fault", "refused", "read by safetensors"), faults),
    ]
    return "\n".join([*lines, ""])


def megabytes(size: int) -> str:
    return f"{size / 10**6:.1f} MB"


def rows(head: tuple[str, ...], body: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    for cells in (head, ("---",) * len(head), *body):
        yield f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
