"""Torch7 files.

No file that Torch7 itself wrote is at hand: those read here are built by ``torch7_writer`` byte by
byte from the description of the format, and a few by hand.
"""

import struct

import numpy as np
import pytest
from torch7_writer import (
    Function,
    Instance,
    Lua,
    Storage,
    Tensor,
    integer,
    sequence,
    table,
    tensor,
    text,
    torch7,
)

from sdn_ray.errors import UserError
from sdn_ray.text.torch7 import Function as Skipped
from sdn_ray.text.torch7 import Table, TorchObject, read_torch7


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "file.t7"
        path.write_bytes(content)
        return read_torch7(path)

    return read


def refused(read, content, words):
    with pytest.raises(UserError, match=words) as error:
        read(content)
    assert "file.t7" in str(error.value)


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (struct.pack("<i", 0), None),
        (struct.pack("<id", 1, -2.5), -2.5),
        (struct.pack("<ii", 2, 3) + b"a\x00b", "a\x00b"),
        (struct.pack("<ii", 2, 1) + b"\xe9", "\udce9"),
        (struct.pack("<ii", 5, 1), True),
        (struct.pack("<ii", 5, 0), False),
    ],
)
def test_plain_values(read, content, value):
    assert read(content) == value


def test_whole_numbers_are_ints_and_others_are_not(read):
    values = read(torch7(sequence([3, -0.5, float("inf"), 2.0**60]))).sequence()
    assert values == [3, -0.5, float("inf"), 2.0**60]
    assert [type(value) for value in values] == [int, float, float, float]


def test_a_tensor_by_hand(read):
    content = b"".join(
        [
            struct.pack("<ii", 4, 1),
            struct.pack("<i", 3) + b"V 1",
            struct.pack("<i", 17) + b"torch.FloatTensor",
            struct.pack("<i", 2),
            struct.pack("<qq", 2, 3),
            struct.pack("<qq", 3, 1),
            struct.pack("<q", 1),
            struct.pack("<ii", 4, 2),
            struct.pack("<i", 3) + b"V 1",
            struct.pack("<i", 18) + b"torch.FloatStorage",
            struct.pack("<q", 6),
            np.arange(6, dtype="<f4").tobytes(),
        ]
    )
    value = read(content)
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, [[0, 1, 2], [3, 4, 5]])
    assert content == torch7(tensor(np.arange(6, dtype=np.float32).reshape(2, 3)))


@pytest.mark.parametrize("kind", ["f8", "f4", "i8", "i4", "i2", "u1", "i1"])
@pytest.mark.parametrize("cuda", [False, True])
def test_every_type_of_element(read, kind, cuda):
    array = np.array([[1, 2], [3, 100]], dtype=kind)
    found = read(torch7(table(tensor=tensor(array, cuda), storage=Storage(array[0], cuda))))
    assert found.get("tensor").dtype == found.get("storage").dtype == array.dtype
    np.testing.assert_array_equal(found.get("tensor"), array)
    np.testing.assert_array_equal(found.get("storage"), array[0])


def test_strides_offsets_and_a_storage_in_common(read):
    storage = Storage(np.arange(12, dtype=np.float32))
    transposed = Tensor(storage, (4, 3), (1, 4))
    part = Tensor(storage, (2, 2), (4, 1), 6)
    repeated = Tensor(storage, (3, 2), (0, 2), 2)
    single = Tensor(storage, (1, 2), (2**62, 1), 11)
    found = read(torch7(sequence([transposed, part, repeated, single]))).sequence()
    np.testing.assert_array_equal(found[0], np.arange(12).reshape(3, 4).T)
    np.testing.assert_array_equal(found[1], [[5, 6], [9, 10]])
    np.testing.assert_array_equal(found[2], [[1, 3]] * 3)
    np.testing.assert_array_equal(found[3], [[10, 11]])
    assert np.shares_memory(found[0], found[1])
    assert not any(value.flags.writeable for value in found)


def test_empty_tensors(read):
    without = Tensor(None, (), (), kind="Double")
    emptied = Tensor(Storage(np.arange(3, dtype=np.float32)), (), ())
    found = read(torch7(sequence([without, emptied]))).sequence()
    assert [value.shape for value in found] == [(0,), (0,)]


def test_cycles_and_shared_references(read):
    inner = table(word="x")
    node = Instance("nngraph.Node", None)
    node.fields = table(data=inner, again=inner, itself=node)
    outer = Lua([(1, node), (inner, 7), ("name", node)])
    outer.set("up", outer)
    found = read(torch7(outer))
    node = found.get(1)
    assert isinstance(node, TorchObject)
    assert node.class_name == "nngraph.Node"
    assert node is found.get("name") is node.get("itself")
    assert node.get("data") is node.get("again")
    assert found.get(node.get("data")) == 7
    assert found.get("up") is found


def test_true_and_1_are_two_keys(read):
    found = read(torch7(Lua([(True, "yes"), (1, "one")])))
    assert found.get(1) == "one"
    assert set(found.entries.values()) == {"yes", "one"}


@pytest.mark.parametrize("tag", [6, 7, 8])
def test_functions_are_skipped(read, tag):
    function = Function(tag, b"\x1bLJ" + bytes(range(40)), sequence([table(name="x", value=2)]))
    found = read(torch7(sequence([function, "after"]))).sequence()
    assert isinstance(found[0], Skipped)
    assert vars(found[0]) == {}
    assert found[1] == "after"


def test_an_object_from_before_versions(read):
    found = read(torch7(Instance("nn.Linear", table(x=1), version=None)))
    assert (found.class_name, found.get("x"), found.get("y")) == ("nn.Linear", 1, None)


def test_deep_nesting_is_read_and_absurd_nesting_refused(read):
    def nested(levels):
        value = Lua()
        for _ in range(levels):
            value = Lua([(1, value)])
        return torch7(value)

    found, levels = read(nested(20_000)), 0
    while (found := found.get(1)) is not None:
        levels += 1
    assert levels == 20_000
    refused(read, nested(40_000), "nested")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes left"),
        (b"4\n1\n3\nV 1\n", "ASCII"),
        (b"\x80\x02}q\x00.", "type tag"),
        (integer(2) + integer(-1), "-1 bytes of a string"),
        (integer(2) + integer(2**31 - 1) + b"abc", "3 bytes left"),
        (integer(3) + integer(1) + integer(2**31 - 1), "entries of a table"),
        (integer(8) + integer(1) + integer(-5), "bytes of a function"),
        (torch7(Instance("nn.Linear", "text")), "fields of a 'nn.Linear'"),
        (torch7(Instance("torch.HalfTensor", None)), "'torch.HalfTensor', which is not supported"),
        (torch7(Tensor(Storage(np.zeros(5, "f4")), (2, 3), (3, 1))), "outside its storage of 5"),
        (torch7(Tensor(Storage(np.zeros(5, "f4")), (2,), (1,), 0)), "offset -1"),
        (torch7(Tensor(Storage(np.zeros(5, "f4")), (2,), (-1,), 3)), "strides"),
        (torch7(Tensor(Storage(np.zeros(5, "f4")), (-2,), (1,))), "sizes"),
        (torch7(Tensor(Storage(np.zeros(5, "f4")), (2**40, 2**40), (0, 0))), "sizes"),
        (torch7(Tensor(Storage(np.zeros(5, "f4")), (0, 2**62, 2**62), (0, 0, 0))), "sizes"),
        (torch7(Tensor(Storage(np.zeros(5, "f8")), (5,), (1,))), "as the storage"),
        (torch7(Tensor(table(x=1), (5,), (1,))), "a Table as the storage"),
        (torch7(Tensor(None, (5,), (1,))), "nothing as the storage"),
        (torch7(Tensor(None, (1,) * 17, (1,) * 17)), "17 dimensions"),
        (
            integer(4)
            + integer(1)
            + text("V 1")
            + text("torch.ByteStorage")
            + struct.pack("<q", 2**62),
            "elements of a storage",
        ),
    ],
)
def test_malformed_files_are_refused(read, content, words):
    refused(read, content, words)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.t7.*No such file"):
        read_torch7(tmp_path / "none.t7")


def sample():
    """A small file with a bit of everything."""
    shared = Storage(np.arange(6, dtype=np.float32), cuda=True)
    node = Instance("nngraph.Node", table(id=3))
    return torch7(
        table(
            name="sample",
            flag=True,
            number=0.5,
            weight=Tensor(shared, (2, 3), (3, 1), kind="Cuda"),
            bias=Tensor(shared, (2,), (3,), 2, kind="Cuda"),
            bytes=tensor(np.arange(4, dtype=np.uint8)),
            node=node,
            nodes=Lua([(1, node), (node, 1)]),
            call=Function(8, b"\x1bLJ\x01", sequence([])),
        )
    )


def test_a_file_cut_anywhere_is_refused(read):
    content = sample()
    assert isinstance(read(content), Table)
    for size in range(0, len(content), 3):
        refused(read, content[:size], "bytes left")


def test_flipped_bytes_never_crash_the_reader(read):
    content, random = sample(), np.random.default_rng(0)
    outcomes = []
    for _ in range(300):
        damaged = np.frombuffer(content, np.uint8).copy()
        places = random.integers(0, len(content), random.integers(1, 4))
        damaged[places] = random.integers(0, 256, len(places))
        try:
            read(damaged.tobytes())
            outcomes.append("read")
        except UserError:
            outcomes.append("refused")
    assert set(outcomes) == {"read", "refused"}
