"""One vector of numbers out of a MATLAB 5 file, such as the labels of Oxford-Flower-102.

SciPy's reader trusts the file: a damaged type code ends the whole process with a segmentation
fault (in 1.17 still). This one knows only what a vector of numbers needs, and calls everything else
by name.
The format is that of MathWorks, "MAT-File Format", chapter 1, level 5.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

HEADER_BYTES = 128
BYTE_ORDERS = {b"IM": "<", b"MI": ">"}
MATRIX, COMPRESSED = 14, 15
NUMERIC_CLASSES = range(6, 16)  # double to uint64; below are cell, struct, object, char, sparse
COMPLEX = 0x0800
MOST_BYTES = 64 << 20  # of a variable when it is unpacked
# How the numbers are stored, which need not be their class: MATLAB stores small doubles as uint8.
NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}


def read_matlab_vector(content: bytes, name: str) -> np.ndarray:
    """The variable ``name``, a row or a column of at least one real number: shape ``(length,)``.

    Args:
        content: the bytes of a MATLAB 5 file, compressed or not.
        name: of the variable.

    Raises:
        ValueError: says what was found instead.
    """
    order = BYTE_ORDERS.get(content[126:128])
    if order is None:
        raise ValueError("found no MATLAB 5 file")
    try:
        for matrix in _matrices(content[HEADER_BYTES:], order):
            parts = list(_elements(matrix, order))
            if len(parts) > 3 and parts[2][1] == name.encode():
                return _vector(parts, order)
    except (struct.error, zlib.error) as error:
        raise ValueError(f"found a damaged MATLAB file ({error})") from error
    raise ValueError(f"found no variable {name}")


def _matrices(content: bytes, order: str) -> Iterator[bytes]:
    for kind, data in _elements(content, order):
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(data, MOST_BYTES)
            if not unpacker.eof:
                raise ValueError(f"found a variable cut short, or of more than {MOST_BYTES} bytes")
            # One matrix: a compressed element in it would be none of MATLAB's.
            yield from (inner for own, inner in _elements(unpacked, order) if own == MATRIX)
        elif kind == MATRIX:
            yield data


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """The type codes and contents of the elements that ``content`` consists of."""
    position = 0
    while position < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, position)
        start, end = position + 8, position + 8 + size
        position = end if kind == COMPRESSED else end + -size % 8
        if kind >> 16:  # an element of at most 4 bytes, which lie inside the tag
            kind, size = kind & 0xFFFF, min(kind >> 16, 4)
            start, end, position = start - 4, start - 4 + size, start
        if end > len(content):
            raise ValueError("found a damaged MATLAB file (it ends early)")
        yield kind, content[start:end]


def _vector(parts: list[tuple[int, bytes]], order: str) -> np.ndarray:
    (_, flags), (_, dimensions), _, (kind, data) = parts[:4]
    (flag_bits,) = struct.unpack_from(f"{order}I", flags)
    if flag_bits & 0xFF not in NUMERIC_CLASSES or flag_bits & COMPLEX or kind not in NUMBERS:
        raise ValueError("found a variable that holds no real numbers")
    shape = tuple(np.frombuffer(dimensions, f"{order}i4").tolist())
    values = np.frombuffer(data, order + NUMBERS[kind])
    if values.size == 0 or sorted(shape) != [1] * (len(shape) - 1) + [values.size]:
        raise ValueError(f"found {values.size} numbers in an array of shape {shape}")
    return values
