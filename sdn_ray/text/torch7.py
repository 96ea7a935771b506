"""Torch7's serialisation format: what Lua's ``torch.save`` wrote, read into inert Python values.

The reader is our own since no kept one exists: PyTorch removed ``load_lua`` in 1.0, and the package
`torchfile` (0.1.0) is years old, calls itself for each level of nesting, and checks neither sizes
nor strides nor offsets against the file.

The format, in binary mode on a 64-bit machine, little-endian. A value is an int32 tag and then:
nil nothing; a number float64; a string its int32 length and bytes; a boolean int32; a table, torch
object or function an int32 index, and, where the index is new, its content: of a table int32
entries, then key, value, …; of a torch object the string ``V 1`` and its class name, then the
content; of a function its bytecode as a string, then a table of what it closes over. A tensor's
content is int32 dimensions, int64 sizes and strides, an int64 offset from 1, and its storage; a
storage's is an int64 size and the elements; every other class's is one table, its fields.

Nothing in a file is executed: bytecode is skipped.
"""

import math
import re
import struct
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sdn_ray.errors import UserError

_NIL, _NUMBER, _STRING, _TABLE, _TORCH, _BOOLEAN = range(6)
_FUNCTION, _LEGACY_RECURSIVE_FUNCTION, _RECURSIVE_FUNCTION = 6, 7, 8

_ELEMENTS = {
    "Double": "<f8",
    "Float": "<f4",
    "Long": "<i8",
    "Int": "<i4",
    "Short": "<i2",
    "Byte": "u1",
    "Char": "i1",
    "Cuda": "<f4",
}
_TYPES = _ELEMENTS | {f"Cuda{name}": kind for name, kind in _ELEMENTS.items() if name != "Cuda"}

_MOST_DIMENSIONS = 16
_MOST_ELEMENTS = 2**26  # a stride of 0 makes a tensor larger than its storage
_DEEPEST = 50_000  # the unrolled graph of 18 steps goes some thousands deep
_LARGEST_WHOLE = 2**53

_Step = Generator["_Step", Any, Any]


@dataclass(eq=False)
class Table:
    """A Lua table. Keys that are whole numbers are ints, strings str, tables themselves."""

    entries: dict[Any, Any] = field(default_factory=dict, repr=False)

    def get(self, key: Any) -> Any:
        """The value of ``key``, None where there is none."""
        return self.entries.get(key)

    def sequence(self) -> list[Any]:
        """The values of the keys 1, 2, … up to the first that is missing."""
        values: list[Any] = []
        while (value := self.entries.get(len(values) + 1)) is not None:
            values.append(value)
        return values


@dataclass(eq=False)
class TorchObject(Table):
    """An object of a Torch class other than tensors and storages: its class's name and fields."""

    class_name: str = ""


@dataclass(eq=False)
class Function:
    """A Lua function, of which nothing is kept."""


@dataclass(eq=False)
class OpaqueKey:
    """A boolean or an array as a key: Python takes the one for a number and refuses the other."""

    value: Any


class _Malformed(Exception):
    pass


def read_torch7(path: str | Path) -> Any:
    """What ``torch.save`` wrote to ``path``, its binary format.

    nil comes as None, whole numbers as int and others as float, strings as str (UTF-8, other bytes
    as surrogate escapes), tables as ``Table``, functions as ``Function``. Tensors and storages come
    as read-only NumPy arrays; tensors that share a storage share memory. All else of Torch comes as
    ``TorchObject``. What the file holds once and refers to twice is one object, cycles too.

    Raises:
        UserError: the file is missing, truncated, damaged or of another format.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a file that Torch7 saved"
        ) from error
    try:
        return _Reader(content).read()
    except _Malformed as error:
        raise UserError(
            f"{path}: {error}; expected a complete file that Torch7 saved, in binary"
        ) from error


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0
        self._objects: dict[int, Any] = {}

    def read(self) -> Any:
        if re.match(rb"[0-8]\r?\n", self._content):
            raise _Malformed("found Torch7's ASCII format, which is not supported")
        # Each value is a generator that yields the values inside it, so that nesting takes room in
        # a list and not on Python's stack.
        nested, value = [self._value()], None
        while nested:
            if len(nested) > _DEEPEST:
                raise _Malformed(f"found values nested more than {_DEEPEST} deep")
            try:
                inner = nested[-1].send(value)
            except StopIteration as end:
                nested.pop()
                value = end.value
            else:
                nested.append(inner)
                value = None
        return value

    def _value(self) -> _Step:
        place, tag = self._place, self._int()
        if tag == _NIL:
            return None
        if tag == _NUMBER:
            return _number(*self._unpack("<d"))
        if tag == _STRING:
            return self._string()
        if tag == _BOOLEAN:
            return self._int() == 1
        if tag == _FUNCTION:
            return (yield self._function(None))
        contents = {
            _TABLE: self._table,
            _TORCH: self._torch,
            _LEGACY_RECURSIVE_FUNCTION: self._function,
            _RECURSIVE_FUNCTION: self._function,
        }
        if tag not in contents:
            raise _Malformed(f"found the type tag {tag} at byte {place}, expected 0 to 8")
        index = self._int()
        if index in self._objects:
            return self._objects[index]
        return (yield contents[tag](index))

    def _table(self, index: int) -> _Step:
        entries = self._int()
        # The shortest entry is two tags.
        self._require(entries, 8, "entries of a table")
        table = self._objects[index] = Table()
        for _ in range(entries):
            key = yield self._value()
            value = yield self._value()
            opaque = isinstance(key, bool | np.ndarray)
            table.entries[OpaqueKey(key) if opaque else key] = value
        return table

    def _function(self, index: int | None) -> _Step:
        self._take(self._int(), "bytes of a function")
        function = Function()
        if index is not None:
            self._objects[index] = function
        yield self._value()  # what it closes over
        return function

    def _torch(self, index: int) -> _Step:
        name = self._string()
        if re.fullmatch(r"V \d+", name):  # files from before versions begin with the name
            name = self._string()
        found = re.fullmatch(r"torch\.(\w+)(Tensor|Storage)", name)
        if found:
            if found[1] not in _TYPES:
                raise _Malformed(f"found a {name[:60]!r}, which is not supported")
            content = self._tensor if found[2] == "Tensor" else self._storage
            value = yield content(np.dtype(_TYPES[found[1]]))
            self._objects[index] = value
            return value
        thing = self._objects[index] = TorchObject(class_name=name)
        fields = yield self._value()
        if not isinstance(fields, Table):
            raise _Malformed(f"found {_kind(fields)} as the fields of a {name[:60]!r}, not a table")
        thing.entries = fields.entries
        return thing

    def _storage(self, dtype: np.dtype) -> _Step:
        (size,) = self._unpack("<q")
        start = self._place
        self._require(size, dtype.itemsize, "elements of a storage")
        self._place += size * dtype.itemsize
        return np.frombuffer(self._content, dtype, size, start)
        yield  # a generator like the others

    def _tensor(self, dtype: np.dtype) -> _Step:
        dimensions = self._int()
        if not 0 <= dimensions <= _MOST_DIMENSIONS:
            raise _Malformed(f"found a tensor of {dimensions} dimensions")
        sizes = self._unpack(f"<{dimensions}q")
        strides = self._unpack(f"<{dimensions}q")
        (offset,) = self._unpack("<q")
        storage = yield self._value()
        if storage is None and math.prod(sizes) * dimensions == 0:
            return np.empty(0, dtype)
        _check_storage(storage, dtype)
        if dimensions == 0:
            return storage[:0]
        return _view(storage, sizes, strides, offset - 1)

    def _int(self) -> int:
        return self._unpack("<i")[0]

    def _string(self) -> str:
        return self._take(self._int(), "bytes of a string").decode("utf-8", "surrogateescape")

    def _unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self._take(struct.calcsize(form), "bytes"))

    def _take(self, size: int, what: str) -> bytes:
        self._require(size, 1, what)
        self._place += size
        return self._content[self._place - size : self._place]

    def _require(self, count: int, size: int, what: str) -> None:
        """See that ``count`` items of ``size`` bytes each are still to come."""
        left = len(self._content) - self._place
        if not 0 <= count <= left // size:
            raise _Malformed(
                f"found {count} {what} announced at byte {self._place} with {left} bytes left"
            )


def _number(value: float) -> int | float:
    return int(value) if abs(value) < _LARGEST_WHOLE and value.is_integer() else value


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _check_storage(storage: Any, dtype: np.dtype) -> None:
    if not isinstance(storage, np.ndarray) or storage.ndim != 1 or storage.dtype != dtype:
        raise _Malformed(f"found {_kind(storage)} as the storage of a tensor of {dtype}")
    if not storage.flags.c_contiguous:
        raise _Malformed("found a tensor as the storage of another")


def _view(
    storage: np.ndarray, sizes: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> np.ndarray:
    """The tensor on ``storage`` that has these sizes, and strides and offset in elements."""
    described = f"a tensor of sizes {sizes}, strides {strides} and offset {offset}"
    elements = math.prod(max(size, 1) for size in sizes)
    if min(*sizes, *strides, offset) < 0 or elements > _MOST_ELEMENTS:
        raise _Malformed(f"found {described}")
    if 0 in sizes:
        return np.empty(sizes, storage.dtype)
    # The stride of a single element is never taken, and may be any number.
    taken = [stride if size > 1 else 0 for size, stride in zip(sizes, strides, strict=True)]
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, taken, strict=True))
    if last >= len(storage):
        raise _Malformed(f"found {described} outside its storage of {len(storage)} elements")
    return np.lib.stride_tricks.as_strided(
        storage[offset:], sizes, [stride * storage.itemsize for stride in taken], writeable=False
    )
