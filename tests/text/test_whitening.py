"""Captions read through images: by hand, and on made-up data with a known answer."""

import numpy as np
import pytest

from sdn_ray.errors import UserError
from sdn_ray.text.whitening import CaptionWhitening, canonical_whitening, load_whitening


def test_by_hand():
    """One feature; of two dimensions the large one has nothing to do with it.

    The features are ±1 when standardised. The covariance of the captions is diag(1, 0.01), so the
    ridge is 0.1 · 0.505; predictions are 0.1 / (0.01 + 0.0505) times the second dimension, and
    brought to size 1 they are ten times it.
    """
    embeddings = np.array([[4, 2.1], [4, 1.9], [2, 2.1], [2, 1.9]], np.float32)
    features = np.array([[8], [2], [8], [2]], np.float32)
    whiten = canonical_whitening(embeddings, [[0], [1], [2], [3]], features)
    np.testing.assert_allclose(whiten.mean, [3, 2])
    assert whiten.matrix.shape == (2, 1)
    sign = np.sign(whiten.matrix[1, 0])
    np.testing.assert_allclose(sign * whiten.matrix, [[0], [10]], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sign * whiten(embeddings), [[1], [-1], [1], [-1]], atol=1e-4)


def test_a_caption_counts_as_often_as_it_is_used():
    embeddings = np.array([[0.0], [1.0], [9.0]], np.float32)  # the last one is no image's
    features = np.array([[1], [1], [5]], np.float32)
    whiten = canonical_whitening(embeddings, [[0], [0], [0, 1]], features)
    np.testing.assert_allclose(whiten.mean, [0.25])


def test_what_images_bear_out_is_brought_to_one_size_and_wording_is_not():
    draws = np.random.default_rng(0)
    seen, wording = draws.normal(size=(4000, 2)), draws.normal(size=(4000, 6))
    # What can be seen is of two sizes, and the wording is louder than either.
    embeddings = np.concatenate([seen * [1, 0.5], 2 * wording], 1).astype(np.float32)
    features = seen @ draws.normal(size=(2, 5)) + 0.1 * draws.normal(size=(4000, 5))
    whiten = canonical_whitening(
        embeddings, [[i] for i in range(4000)], features.astype(np.float32)
    )
    found = whiten(embeddings)
    assert found.dtype == np.float32
    for column in seen.T:
        unexplained = np.linalg.lstsq(found[:, :2], column, rcond=None)[1][0]
        assert unexplained < 0.05 * column @ column
    # Its own covariance has the wording in the first places; images put what is seen there.
    np.testing.assert_allclose(found[:, :2].std(0), 1, atol=0.05)
    assert found[:, 2:].std(0).max() < 0.3


def test_what_is_saved_is_read(tmp_path):
    whiten = CaptionWhitening(np.float32([1, 2]), np.float32([[1, 2, 3], [4, 5, 6]]))
    whiten.save(tmp_path / "w.safetensors")
    again = load_whitening(tmp_path / "w.safetensors")
    assert again.dim == 3
    np.testing.assert_array_equal(again(np.float32([[2, 4]])), [[9, 12, 15]])
    (tmp_path / "w.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"w\.safetensors: cannot be read as a whitening"):
        load_whitening(tmp_path / "w.safetensors")
