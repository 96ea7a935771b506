"""Embeddings kept on disk by caption."""

import warnings

import numpy as np
import pytest

from sdn_ray.text.cache import encode_cached


class Lengths:
    """An encoder of two columns that notes what it is given."""

    def __init__(self):
        self.given = []

    def __call__(self, captions):
        self.given.append(captions)
        return np.array([[len(c), sum(map(ord, c))] for c in captions], np.float32).reshape(-1, 2)


def cached(captions, folder, key="k"):
    """Embeddings from the cache, checked, and what had to be encoded for them."""
    encode = Lengths()
    embeddings = encode_cached(encode, captions, folder, key)
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, Lengths()(captions))
    return encode.given


def test_cache_encodes_each_caption_once(tmp_path):
    assert cached(["b", "a", "b", "日本"], tmp_path) == [["b", "a", "日本"]]
    assert cached(["a", "日本", "a", "b"], tmp_path) == []
    assert cached(["c", "a", ""], tmp_path) == [["c", ""]]
    assert cached(["", "a", "b", "c", "日本"], tmp_path) == []
    assert cached([], tmp_path) == []
    assert cached(["a"], tmp_path, key="another") == [["a"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text-another", "text-k"]
    assert len(list((tmp_path / "text-k").iterdir())) == 2


def test_cache_starts_with_no_captions(tmp_path):
    assert encode_cached(Lengths(), [], tmp_path, "k").shape == (0, 2)
    assert list(tmp_path.iterdir()) == []


def test_two_writers_at_once(tmp_path):
    def encode(captions):
        # Another process looks up and writes while this one encodes.
        assert cached(["b", "c"], tmp_path) == [["b", "c"]]
        return Lengths()(captions)

    encode_cached(encode, ["a", "b"], tmp_path, "k")
    assert len(list((tmp_path / "text-k").iterdir())) == 2
    assert cached(["a", "b", "c"], tmp_path) == []


@pytest.mark.parametrize("damage", ["truncated", "empty", "changed", "foreign"])
def test_damaged_shard_is_encoded_again(tmp_path, damage):
    cached(["a", "b"], tmp_path)
    (shard,) = (tmp_path / "text-k").iterdir()
    content = shard.read_bytes()
    damaged = {
        "truncated": content[:-3],
        "empty": b"",
        "changed": content[:-1] + bytes([content[-1] ^ 1]),
        "foreign": b"PK\x03\x04 not an array",
    }
    cached(["c"], tmp_path)
    shard.write_bytes(damaged[damage])
    with pytest.warns(UserWarning, match=f"{shard.name}: damaged"):
        assert cached(["a", "c", "b"], tmp_path) == [["a", "b"]]
    shard.unlink()
    assert cached(["a", "b", "c"], tmp_path) == []


def test_a_file_being_written_is_no_damage(tmp_path):
    cached(["a"], tmp_path)
    (tmp_path / "text-k" / ".half.npy").write_bytes(b"half")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cached(["a"], tmp_path) == []
