import io
import random
import struct
from itertools import product

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from sdn_ray.data.readers.matlab import read_matlab_vector

LABELS = [3, 1, 2, 77, 102]
DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "f4", "f8"]


def matlab_file(compressed=False, **variables):
    file = io.BytesIO()
    scipy.io.savemat(file, variables, do_compression=compressed)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_what_scipy_writes(compressed, dtype):
    # Up to 4 bytes of numbers lie inside the tag, and the padding goes by the length.
    for length, transposed in product(range(1, 10), (False, True)):
        expected = np.arange(1, length + 1, dtype=dtype)
        labels = expected[:, None] if transposed else expected[None, :]
        content = matlab_file(
            compressed, setids=np.eye(3), n=1, labels=labels, x="text", y={"a": 1}
        )
        found = read_matlab_vector(content, "labels")
        assert found.dtype == expected.dtype
        assert found.tolist() == expected.tolist()
        assert read_matlab_vector(content, "n").tolist() == [1]


def test_doubles_stored_as_bytes_in_big_endian():
    """By hand, as MATLAB writes: class double, numbers uint8, a short name inside its tag."""
    matrix = (
        struct.pack(">IIII", 6, 8, 6, 0)
        + struct.pack(">IIii", 5, 8, 1, 5)
        + struct.pack(">HH4s", 3, 1, b"ids")
        + struct.pack(">II8s", 2, 5, bytes(LABELS))
    )
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    content = header + struct.pack(">II", 14, len(matrix)) + matrix
    assert read_matlab_vector(content, "ids").tolist() == LABELS
    assert scipy.io.loadmat(io.BytesIO(content))["ids"].tolist() == [LABELS]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.ones((2, 3)), r"found 6 numbers in an array of shape \(2, 3\)"),
        (np.ones((1, 0)), r"found 0 numbers in an array of shape \(1, 0\)"),
        (np.ones((1, 3)) * 1j, "found a variable that holds no real numbers"),
        ("text", "found a variable that holds no real numbers"),
        (scipy.sparse.csc_array([LABELS]), "found a variable that holds no real numbers"),
        (np.array([["a", "bc"]], dtype=object), "found a variable that holds no real numbers"),
        ({"a": 1}, "found a variable that holds no real numbers"),
    ],
)
def test_other_variables_are_named(value, found):
    with pytest.raises(ValueError, match=f"^{found}$"):
        read_matlab_vector(matlab_file(labels=value), "labels")


def test_missing_variable():
    with pytest.raises(ValueError, match=r"^found no variable labels$"):
        read_matlab_vector(matlab_file(label=LABELS), "labels")


@pytest.mark.parametrize("content", [b"", b"<html>", bytes(200), b"\x89HDF\r\n\x1a\n" + bytes(600)])
def test_files_of_another_kind(content):
    with pytest.raises(ValueError, match=r"^found no MATLAB 5 file$"):
        read_matlab_vector(content, "labels")


@pytest.mark.parametrize("compressed", [False, True])
def test_every_truncation_is_found(compressed):
    content = matlab_file(compressed, labels=np.array([LABELS * 20]))
    assert read_matlab_vector(content, "labels").tolist() == LABELS * 20
    # The reader needs no padding behind the last number: 100 numbers of 8 bytes leave none.
    for length in range(len(content)):
        with pytest.raises(ValueError, match=r"^found "):
            read_matlab_vector(content[:length], "labels")


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_raises_nothing_but_value_errors(compressed):
    content = matlab_file(compressed, labels=np.array([LABELS * 20], dtype=np.uint8))
    rng = random.Random(0)
    reasons = []
    for _ in range(2000):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(120, min(len(content), 220))] = rng.randrange(256)
        try:
            assert read_matlab_vector(bytes(damaged), "labels").ndim == 1
        except ValueError as error:
            reasons.append(str(error))
    assert len(reasons) > 500
    assert all(reason.startswith("found ") for reason in reasons)


def test_an_unknown_type_code_of_the_numbers():
    """The damage on which scipy.io.loadmat ends the process."""
    content = bytearray(matlab_file(labels=np.array([LABELS], dtype=np.uint8)))
    position = content.index(bytes(LABELS)) - 8
    assert content[position : position + 2] == b"\x02\x00"
    content[position + 1] = 37
    with pytest.raises(ValueError, match=r"^found a variable that holds no real numbers$"):
        read_matlab_vector(bytes(content), "labels")
