"""Writes Torch7's binary format, byte by byte from its description; see ``test_torch7``."""

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TYPES = {"f8": "Double", "f4": "Float", "i8": "Long", "i4": "Int", "i2": "Short", "u1": "Byte"}
TYPES["i1"] = "Char"


@dataclass(eq=False)
class Lua:
    """A table: pairs of key and value. One object written twice is written once and referred to."""

    pairs: list = field(default_factory=list)

    def set(self, key, value):
        self.pairs.append((key, value))
        return self


@dataclass(eq=False)
class Instance:
    """An object of a Torch class, whose fields are one table."""

    class_name: str
    fields: Any
    version: str | None = "V 1"


@dataclass(eq=False)
class Storage:
    elements: np.ndarray
    cuda: bool = False

    @property
    def kind(self):
        name = TYPES[self.elements.dtype.str[1:]]
        return ("Cuda" if name == "Float" else f"Cuda{name}") if self.cuda else name


@dataclass(eq=False)
class Tensor:
    storage: Any
    sizes: tuple
    strides: tuple
    offset: int = 1
    kind: str = "Float"


@dataclass(eq=False)
class Function:
    tag: int
    bytecode: bytes
    closure: Any


def table(**fields):
    return Lua(list(fields.items()))


def sequence(values):
    return Lua(list(enumerate(values, 1)))


def tensor(array, cuda=False):
    """A contiguous tensor on a storage of its own."""
    storage = Storage(np.ascontiguousarray(array).reshape(-1), cuda)
    strides = [int(np.prod(array.shape[place + 1 :])) for place in range(array.ndim)]
    return Tensor(storage, array.shape, tuple(strides), kind=storage.kind)


def integer(value):
    return struct.pack("<i", value)


def text(value):
    content = value if isinstance(value, bytes) else value.encode()
    return integer(len(content)) + content


def torch7(value):
    """The bytes of a value. ``bytes`` are put as they are."""
    out, pending, indices, kept = [], [value], {}, []
    while pending:
        item = pending.pop()
        if isinstance(item, bytes):
            out.append(item)
        elif item is None:
            out.append(integer(0))
        elif isinstance(item, bool):
            out.append(integer(5) + integer(item))
        elif isinstance(item, int | float):
            out.append(integer(1) + struct.pack("<d", item))
        elif isinstance(item, str):
            out.append(integer(2) + text(item))
        else:
            tag = {Lua: 3, Function: getattr(item, "tag", 0)}.get(type(item), 4)
            known = id(item) in indices
            index = indices.setdefault(id(item), len(indices) + 1)
            kept.append(item)
            out.append(integer(tag) + (b"" if tag == 6 else integer(index)))
            if not known:
                pending.extend(reversed(_content(item)))
    return b"".join(out)


def _content(item):
    """The parts of an object after its index: bytes, and values to write."""
    if isinstance(item, Lua):
        return [integer(len(item.pairs)), *(part for pair in item.pairs for part in pair)]
    if isinstance(item, Function):
        return [text(item.bytecode), item.closure]
    if isinstance(item, Storage):
        size = struct.pack("<q", item.elements.size)
        return [text("V 1") + text(f"torch.{item.kind}Storage") + size + item.elements.tobytes()]
    if isinstance(item, Tensor):
        shape = struct.pack(f"<{2 * len(item.sizes) + 1}q", *item.sizes, *item.strides, item.offset)
        name = text("V 1") + text(f"torch.{item.kind}Tensor")
        return [name + integer(len(item.sizes)) + shape, item.storage]
    version = text(item.version) if item.version else b""
    return [version + text(item.class_name), item.fields]
