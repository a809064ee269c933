"""What a pickle holds, read without unpickling it: nothing that it names is imported or called.

A pickle is a program. ``pickletools`` lists its instructions; those for numbers, text, tuples,
lists and dictionaries are followed, and a call stays what it says: a name and its arguments.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encodercheck.weights.header import quoted

# CIFAR-100's training batch takes about 250,000.
MOST_INSTRUCTIONS = 1_000_000

ENCODE = "_codecs encode"
RECONSTRUCT = frozenset(f"numpy.{core}.multiarray _reconstruct" for core in ("core", "_core"))
FROM_BUFFER = frozenset(f"numpy.{core}.numeric _frombuffer" for core in ("core", "_core"))
# All that the pickle of an array ever names.
NAMES = frozenset({ENCODE, "numpy ndarray", "numpy dtype", *RECONSTRUCT, *FROM_BUFFER})

_NOTHING = frozenset({"PROTO", "FRAME"})
_INTEGERS = frozenset({"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"})
_TEXTS = frozenset({"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"})
_BYTES = frozenset({"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"})
_OF_PYTHON_2 = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})
_ARGUMENTS = _INTEGERS | _TEXTS | _BYTES | _OF_PYTHON_2
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})

UNFIT = "its instructions do not fit together"


@dataclass(frozen=True)
class Name:
    """What a pickle would import, as "module name"."""

    name: str


@dataclass
class Call:
    """What a pickle would call, and the state that the result would get."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


def read(raw: bytes, names: Collection[str] = NAMES) -> Any:
    """Return the value that a pickle describes; text of Python 2 is text of Latin-1 here.

    Raises:
        ValueError: it is no pickle, names what is not in ``names``, or does more than describe
            plain values and calls.
    """
    machine = _Machine(names)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
            if opcode.name == "STOP":
                return machine.pop()
            if count > MOST_INSTRUCTIONS:
                raise ValueError(f"more than {MOST_INSTRUCTIONS} instructions")
            machine.follow(opcode.name, argument)
    except (IndexError, KeyError, OverflowError) as error:
        raise ValueError(UNFIT) from error
    raise ValueError("it ends without a result")  # which pickletools finds first


def array(value: Any) -> NDArray[np.uint8]:
    """Return the array of bytes that a value of :func:`read` describes.

    Raises:
        ValueError: it describes no array of 8 bits whose rows lie one after another.
    """
    if isinstance(value, Call) and value.name in FROM_BUFFER:
        raw, kind, shape, order = _fields(value.arguments, 4)
        in_rows = order == "C"
    elif isinstance(value, Call) and value.name in RECONSTRUCT:
        _, shape, kind, by_columns, raw = _fields(value.state, 5)
        in_rows = by_columns is False
    else:
        raise ValueError("it is no array")
    is_bytes = (
        isinstance(kind, Call) and kind.name == "numpy dtype" and kind.arguments[:1] == ("u1",)
    )
    if not (is_bytes and in_rows):
        raise ValueError("it is no array of bytes, row by row")
    found = np.frombuffer(_bytes(raw), dtype=np.uint8)
    sides = _fields(shape, 2)
    if any(type(side) is not int for side in sides) or sides[0] * sides[1] != len(found):
        raise ValueError(f"its {len(found)} bytes are not the array that it says")
    return found.reshape(sides)


def text(value: Any) -> str:
    """Return text, which Python 2 and 3 pickle in different ways.

    Raises:
        ValueError: it is none.
    """
    return _bytes(value).decode("latin-1")


def _bytes(value: Any) -> bytes:
    """Return bytes, however they were pickled; text of Latin-1 stands for its bytes."""
    if isinstance(value, Call) and value.name == ENCODE:
        value = _fields(value.arguments, 2)[0]
    if isinstance(value, str):
        return value.encode("latin-1")
    if not isinstance(value, (bytes, bytearray)):
        raise ValueError("it is not bytes")
    return bytes(value)


def _fields(value: Any, count: int) -> tuple[Any, ...]:
    if not isinstance(value, tuple) or len(value) != count:
        raise ValueError("an array is not described as numpy does")
    return value


class _Machine:
    """Follows instructions that build values; knows no way to import or to call."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._stack: list[Any] = []
        # What lay on the stack below each mark.
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def follow(self, name: str, argument: Any) -> None:
        """Follow one instruction; raise ValueError where it is none that describes values."""
        if name in _NOTHING:
            return
        if name in _ARGUMENTS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _PUTS:
            self._memo[argument] = self._stack[-1]
        elif name in _GETS:
            self._stack.append(self._memo[argument])
        elif name == "GLOBAL":
            self._name(argument)
        elif name in _STEPS:
            _STEPS[name](self)
        else:
            raise ValueError(f"its instruction {name} has no place among plain values")

    def pop(self) -> Any:
        return self._stack.pop()

    def memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def make_tuple(self, count: int | None = None) -> None:
        items = self._marked() if count is None else [self.pop() for _ in range(count)][::-1]
        self._stack.append((*items,))

    def make_list(self) -> None:
        items = self._marked()
        self._stack.append(items)

    def make_dict(self) -> None:
        items = self._marked()
        self._stack.append({})
        self._set(items)

    def append(self) -> None:
        item = self.pop()
        self._top(list).append(item)

    def appends(self) -> None:
        items = self._marked()
        self._top(list).extend(items)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self._set([key, value])

    def set_items(self) -> None:
        items = self._marked()
        self._set(items)

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        self._name(f"{text(module)} {text(name)}")

    def reduce(self) -> None:
        arguments, called = self.pop(), self.pop()
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise ValueError(UNFIT)
        self._stack.append(Call(called.name, arguments))

    def build(self) -> None:
        state = self.pop()
        self._top(Call).state = state

    def _marked(self) -> list[Any]:
        """Return what lies above the last mark, and take it off."""
        items, self._stack = self._stack, self._below.pop()
        return items

    def _set(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise ValueError(UNFIT)
        # Hashing other keys could take for ever: tuples hold tuples, each of them twice.
        keys = [text(key) for key in items[::2]]
        self._top(dict).update(zip(keys, items[1::2], strict=True))

    def _name(self, name: str) -> None:
        if name not in self._names:
            raise ValueError(
                f"it asks for {quoted(name.replace(' ', '.'))}, which could do anything"
            )
        self._stack.append(Name(name))

    def _top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise ValueError(UNFIT)
        return self._stack[-1]


_STEPS: dict[str, Callable[[_Machine], None]] = {
    "MEMOIZE": _Machine.memoize,
    "MARK": _Machine.mark,
    "TUPLE": _Machine.make_tuple,
    "TUPLE1": partial(_Machine.make_tuple, count=1),
    "TUPLE2": partial(_Machine.make_tuple, count=2),
    "TUPLE3": partial(_Machine.make_tuple, count=3),
    "LIST": _Machine.make_list,
    "DICT": _Machine.make_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
