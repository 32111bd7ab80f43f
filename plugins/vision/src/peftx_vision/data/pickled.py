"""Read the pickles of numbers in which CIFAR was published, without the pickle machine.

Unpickling runs code by design. This reader knows the opcodes a dictionary of lists, strings, integers and one
numpy array is made of, and builds nothing else: no class is looked up, no function is called. A GLOBAL opcode
is only a name here, and any name but the three of a numpy array ends the reading.

The opcodes are those of CPython's `pickletools`; the array's are what `numpy.ndarray.__reduce__` and
``__setstate__`` have written since numpy 1.0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftx.errors import DataError

__all__ = ["read_numbers"]

_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_NAMES = (*_RECONSTRUCT, "numpy ndarray", "numpy dtype")
_INTEGERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}


class _Refused(Exception):
    """The pickle holds something that no data file needs; the message says what."""


@dataclass(frozen=True, slots=True)
class _Name:
    """What a GLOBAL opcode names. Never imported."""

    text: str


@dataclass(slots=True)
class _Integer:
    """A numpy integer type in the making: its code such as ``u1`` and its byte order."""

    code: str
    order: str = "="


@dataclass(slots=True)
class _Array:
    """A numpy array in the making; the memo hands out this same object before and after it is filled."""

    value: Any = None


def read_numbers(path: Path) -> dict[str, Any]:
    """Return the dictionary pickled in `path`: byte strings as bytes, keys as str, integer arrays as numpy
    arrays.

    Raises DataError when the file cannot be read, is damaged, or holds anything but dictionaries, lists,
    tuples, strings, integers and arrays of integers.
    """
    try:
        found = _Machine(path.read_bytes()).run()
    except _Refused as refusal:
        raise DataError(f"{path} was not read: {refusal}; get the file again from its source") from refusal
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error})") from error
    except (struct.error, IndexError, KeyError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged or not a pickle; get the file again from its source") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds a {type(found).__name__}, but a dictionary was expected")
    return {key: value.value if isinstance(value, _Array) else value for key, value in found.items()}


class _Machine:
    """The stack machine of pickle, less everything that can act."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Obey opcodes until STOP."""
        while (opcode := bytes(self.take(1))) != b".":
            obey = _OPCODES.get(opcode)
            if obey is None:
                raise _Refused(f"it uses the pickle opcode {opcode!r}, which tables of numbers do not need")
            obey(self)
        return self.stack.pop()

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        if count < 0 or self.at + count > len(self.data):
            raise ValueError("the data end early")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> int:
        """The next integer, of a `struct` format."""
        return int(struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0])

    def line(self) -> str:
        """The text up to the next newline."""
        start = self.at
        while bytes(self.take(1)) != b"\n":
            if self.at - start > 200:
                raise ValueError("a name without an end")
        return str(self.data[start : self.at - 1], "ascii")

    def since_mark(self) -> list[Any]:
        """Everything pushed since the last MARK, taken from the stack."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def fill(self, pairs: list[Any]) -> None:
        """Put alternating keys and values into the dictionary on the stack."""
        target = _expect(self.stack[-1], dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Python 2 wrote its keys as byte strings
            target[str(key, "latin-1") if isinstance(key, bytes) else _expect(key, str)] = value

    def append(self, items: list[Any]) -> None:
        """Append to the list on the stack."""
        _expect(self.stack[-1], list).extend(items)

    def last(self, count: int) -> list[Any]:
        """The last `count` items, taken from the stack."""
        if len(self.stack) < count:
            raise ValueError("the stack is empty")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def reduce(self) -> None:
        """REDUCE calls a function in pickle; here it starts an array or an integer type."""
        called, arguments = self.last(2)
        name = _expect(called, _Name).text
        if name in _RECONSTRUCT:
            self.stack.append(_Array())
        elif name == "numpy dtype":
            code = arguments[0]
            code = str(code, "ascii") if isinstance(code, bytes) else code
            if code not in _INTEGERS:
                raise _Refused(f"it holds an array of type {code!r}, but only integers are expected")
            self.stack.append(_Integer(code))
        else:
            raise _Refused(f"it calls {name!r}, which tables of numbers do not need")

    def build(self) -> None:
        """BUILD sets an object's state; here it fills an array or sets the byte order of an integer type."""
        (state,) = self.last(1)
        target = self.stack[-1]
        if isinstance(target, _Integer):
            order = state[1]
            target.order = str(order, "ascii") if isinstance(order, bytes) else _expect(order, str)
        elif isinstance(target, _Array) and target.value is None:
            target.value = _array(*_expect(state, tuple))
        else:
            raise _Refused(f"it sets the state of a {type(target).__name__}")


def _array(version: int, shape: tuple[int, ...], integer: _Integer, fortran: bool, raw: bytes) -> Any:
    import numpy as np

    code = _expect(integer, _Integer)
    flat = np.frombuffer(
        _expect(raw, bytes), dtype=np.dtype({"|": "="}.get(code.order, code.order) + code.code)
    )
    return flat.reshape(tuple(_expect(side, int) for side in shape), order="F" if fortran else "C")


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} where {kind.__name__} belongs")
    return value


def _named(module: str, name: str) -> _Name:
    text = f"{module} {name}"
    if text not in _NAMES:
        raise _Refused(f"it asks for {module}.{name}, which tables of numbers do not need")
    return _Name(text)


def _push(value: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(value(machine))


def _sized(form: str, text: bool = False) -> Callable[[_Machine], None]:
    """A string whose length is stated first: bytes, or text in UTF-8."""

    def push(machine: _Machine) -> None:
        raw = bytes(machine.take(machine.number(form)))
        machine.stack.append(str(raw, "utf-8") if text else raw)

    return push


def _put(form: str) -> Callable[[_Machine], None]:
    return lambda machine: machine.memo.__setitem__(machine.number(form), machine.stack[-1])


def _protocol(machine: _Machine) -> None:
    version = machine.number("B")
    if not 2 <= version <= 5:
        raise _Refused(f"it is of pickle protocol {version}, and 2 to 5 are understood")


#: Opcode -> what to do; the order is that of the `pickletools` table.
_OPCODES: dict[bytes, Callable[[_Machine], None]] = {
    b"J": _push(lambda machine: machine.number("i")),
    b"K": _push(lambda machine: machine.number("B")),
    b"M": _push(lambda machine: machine.number("H")),
    b"T": _sized("i"),
    b"U": _sized("B"),
    b"B": _sized("I"),
    b"C": _sized("B"),
    b"\x8e": _sized("Q"),
    b"N": _push(lambda machine: None),
    b"\x88": _push(lambda machine: True),
    b"\x89": _push(lambda machine: False),
    b"\x8c": _sized("B", text=True),
    b"X": _sized("I", text=True),
    b"]": _push(lambda machine: []),
    b"a": lambda machine: machine.append(machine.last(1)),
    b"e": lambda machine: machine.append(machine.since_mark()),
    b")": _push(lambda machine: ()),
    b"t": lambda machine: machine.stack.append(tuple(machine.since_mark())),
    b"\x85": lambda machine: machine.stack.append(tuple(machine.last(1))),
    b"\x86": lambda machine: machine.stack.append(tuple(machine.last(2))),
    b"\x87": lambda machine: machine.stack.append(tuple(machine.last(3))),
    b"}": _push(lambda machine: {}),
    b"s": lambda machine: machine.fill(machine.last(2)),
    b"u": lambda machine: machine.fill(machine.since_mark()),
    b"(": lambda machine: machine.marks.append(len(machine.stack)),
    b"h": _push(lambda machine: machine.memo[machine.number("B")]),
    b"j": _push(lambda machine: machine.memo[machine.number("I")]),
    b"q": _put("B"),
    b"r": _put("I"),
    b"\x94": lambda machine: machine.memo.__setitem__(len(machine.memo), machine.stack[-1]),
    b"c": _push(lambda machine: _named(machine.line(), machine.line())),
    b"\x93": lambda machine: machine.stack.append(_named(*machine.last(2))),
    b"R": lambda machine: machine.reduce(),
    b"b": lambda machine: machine.build(),
    b"\x80": _protocol,
    b"\x95": lambda machine: (machine.take(8), None)[1],
}
