"""Precomputed embeddings: what is read, and what is refused."""

import io
import os
import pickle
import struct

import numpy as np
import pytest

from sdn_ray.errors import UserError
from sdn_ray.text.precomputed import read_precomputed

NAMES = ["001.Black_footed_Albatross/Black_Footed_Albatross_0046_18", "002.Laysan/Bird.v2_1.jpg"]
STEMS = ["Black_Footed_Albatross_0046_18", "Bird.v2_1"]
VALUES = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4) / 7


def python2_string(text: bytes) -> bytes:
    """A Python 2 `str` in protocol 2."""
    return b"U" + struct.pack("B", len(text)) + text


def python2_list(items: list[bytes]) -> bytes:
    return b"\x80\x02](" + b"".join(items) + b"e."


def python2_array(array: np.ndarray) -> bytes:
    """A float32 array as Python 2 with NumPy 1 writes it: raw bytes as a `str`."""
    data = array.tobytes()
    shape = b"(" + b"".join(b"K" + struct.pack("B", size) for size in array.shape) + b"t"
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        + python2_string(b"b")
        + b"\x87R(K\x01"
        + shape
        + b"cnumpy\ndtype\n"
        + python2_string(b"f4")
        + b"K\x00K\x01\x87R(K\x03"
        + python2_string(b"<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"\x89T"
        + struct.pack("<I", len(data))
        + data
        + b"tb"
    )


def write_folder(folder, names, embeddings):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "filenames.pickle").write_bytes(names)
    (folder / "char-CNN-RNN-embeddings.pickle").write_bytes(embeddings)


def python2_folder(folder, names=tuple(NAMES), values=VALUES):
    write_folder(
        folder,
        python2_list([python2_string(name.encode()) for name in names]),
        python2_list([python2_array(value) for value in values]),
    )


def assert_read(path):
    found = read_precomputed(path)
    assert list(found) == STEMS
    for stem, value in zip(STEMS, VALUES, strict=True):
        assert found[stem].dtype == np.float32
        assert (found[stem] == value).all()


def test_python2_pickles(tmp_path):
    python2_folder(tmp_path)
    assert_read(tmp_path)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_this_python(tmp_path, protocol):
    write_folder(
        tmp_path, pickle.dumps(NAMES, protocol), pickle.dumps(list(VALUES.astype("f8")), protocol)
    )
    found = read_precomputed(tmp_path)
    assert all(np.allclose(found[s], v) for s, v in zip(STEMS, VALUES, strict=True))


def test_numpy1_names_are_read_too(tmp_path):
    data = pickle.dumps(VALUES, 2).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core.multiarray" in data
    write_folder(tmp_path, pickle.dumps(NAMES, 2), data)
    assert_read(tmp_path)


def test_train_and_test_are_merged(tmp_path):
    python2_folder(tmp_path / "train", NAMES[:1], VALUES[:1])
    python2_folder(tmp_path / "test", NAMES[1:], VALUES[1:])
    assert_read(tmp_path)


def test_npz(tmp_path):
    np.savez(tmp_path / "e.npz", filenames=np.array(NAMES), embeddings=VALUES.astype("f8"))
    found = read_precomputed(tmp_path / "e.npz")
    assert list(found) == STEMS
    np.testing.assert_allclose(found[STEMS[1]], VALUES[1])


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickle_is_refused_unexecuted(tmp_path, protocol):
    marker = tmp_path / "executed"
    data = pickle.dumps(Malicious(marker), protocol)
    pickle.loads(data)  # the pickle does what it is feared to do
    assert marker.exists()
    marker.unlink()
    write_folder(tmp_path, pickle.dumps(NAMES), data)
    with pytest.raises(UserError, match=r"embeddings\.pickle: refused .*(posix|nt)\.system"):
        read_precomputed(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "builtins.getattr", "numpy.load", "numpy.ndarray.tofile"]
)
def test_other_names_are_refused(tmp_path, name):
    module, attribute = name.split(".", 1)
    write_folder(tmp_path, f"c{module}\n{attribute}\n.".encode(), pickle.dumps(list(VALUES)))
    with pytest.raises(UserError, match=rf"filenames\.pickle: refused .*{name}"):
        read_precomputed(tmp_path)


def test_object_arrays_in_npz_are_refused(tmp_path):
    np.savez(tmp_path / "e.npz", filenames=np.array(NAMES, dtype=object), embeddings=VALUES)
    with pytest.raises(UserError, match=r"e\.npz: cannot be read"):
        read_precomputed(tmp_path / "e.npz")


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match=r"none\.npz: not found"):
        read_precomputed(tmp_path / "none.npz")
    with pytest.raises(UserError, match=r"found no char-CNN-RNN-embeddings\.pickle"):
        read_precomputed(tmp_path)
    python2_folder(tmp_path)
    (tmp_path / "filenames.pickle").unlink()
    with pytest.raises(UserError, match=r"filenames\.pickle: not found"):
        read_precomputed(tmp_path)


@pytest.mark.parametrize("size", [0, 10, 200])
def test_truncated_files(tmp_path, size):
    python2_folder(tmp_path / "pickles")
    path = tmp_path / "pickles" / "char-CNN-RNN-embeddings.pickle"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"embeddings\.pickle: refused or damaged"):
        read_precomputed(tmp_path / "pickles")
    whole = io.BytesIO()
    np.savez(whole, filenames=np.array(NAMES), embeddings=VALUES)
    (tmp_path / "e.npz").write_bytes(whole.getvalue()[:size])
    with pytest.raises(UserError, match=r"e\.npz: cannot be read"):
        read_precomputed(tmp_path / "e.npz")


def refused(tmp_path, names, values):
    np.savez(tmp_path / "e.npz", filenames=np.array(names), embeddings=values)
    with pytest.raises(UserError) as caught:
        read_precomputed(tmp_path / "e.npz")
    assert "e.npz" in str(caught.value)
    return str(caught.value)


def test_wrong_contents_of_npz(tmp_path):
    assert "of 2 images, expected 3" in refused(tmp_path, [*NAMES, "c"], VALUES)
    assert "shape (4,)" in refused(tmp_path, NAMES, VALUES[:, 0])
    assert "'Bird.v2_1' stands there twice" in refused(tmp_path, [NAMES[1]] * 2, VALUES)
    assert "list of strings" in refused(tmp_path, [1, 2], VALUES)
    assert "not an array of numbers" in refused(tmp_path, NAMES, np.full((2, 3, 4), "x"))
    bad = VALUES.copy()
    bad[1, 2, 3] = np.nan
    assert "'Bird.v2_1' hold NaN" in refused(tmp_path, NAMES, bad)
    np.savez(tmp_path / "e.npz", embeddings=VALUES)
    with pytest.raises(UserError, match=r"found arrays \['embeddings'\]"):
        read_precomputed(tmp_path / "e.npz")
    with (tmp_path / "e.npz").open("wb") as file:
        np.save(file, VALUES)
    with pytest.raises(UserError, match="cannot be read"):
        read_precomputed(tmp_path / "e.npz")


def test_wrong_contents_of_pickles(tmp_path):
    write_folder(tmp_path, pickle.dumps(NAMES), pickle.dumps([VALUES[0], VALUES[1, :, :3]]))
    with pytest.raises(UserError, match=r"widths \[3, 4\]"):
        read_precomputed(tmp_path)
    write_folder(tmp_path, pickle.dumps(NAMES), pickle.dumps("none"))
    with pytest.raises(UserError, match="no list"):
        read_precomputed(tmp_path)
    write_folder(tmp_path, pickle.dumps(NAMES), pickle.dumps([VALUES[0], "none"]))
    with pytest.raises(UserError, match="not an array of numbers"):
        read_precomputed(tmp_path)


def test_wrong_merges(tmp_path):
    python2_folder(tmp_path / "train")
    python2_folder(tmp_path / "test")
    with pytest.raises(UserError, match=r"is also in .*train, expected once"):
        read_precomputed(tmp_path)
    python2_folder(tmp_path / "test", ["x", "y"], VALUES[:, :, :2])
    with pytest.raises(UserError, match=r"widths \[2, 4\]"):
        read_precomputed(tmp_path)
