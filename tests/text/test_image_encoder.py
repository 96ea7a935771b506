"""The images' side of a text encoder, by hand and on disk."""

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from sdn_ray.errors import UserError
from sdn_ray.text.image_encoder import (
    IMAGE_ENCODER_FILE,
    ImageEncoder,
    Standardiser,
    load_image_encoder,
)
from sdn_ray.text.whitening import canonical_whitening

FEATURES = np.array([[1, 5, 2], [3, 5, 6]], dtype=np.float32)
WRITTEN = {
    "config": {"dataset": {"name": "cub"}},
    "split": {"train": [1], "validation": [], "test": [2]},
    "features": "teacher",
    "teacher": "/teacher.safetensors",
    "plan": None,
    "image_size": 64,
}


def test_features_are_standardised_and_mapped():
    project = nn.Linear(3, 2)
    with torch.no_grad():
        project.weight.copy_(torch.tensor([[1.0, 0, 0], [1, 1, -2]]))
        project.bias.copy_(torch.tensor([10.0, 0]))
    side = ImageEncoder(Standardiser.of(FEATURES), project)
    # Means 2, 5, 4 and deviations 1, 0, 2: (5, 9, 0) becomes (3, 0, -2); a constant says nothing.
    found = side(np.array([[5, 9, 0]], dtype=np.float32))
    np.testing.assert_array_equal(found, [[13, 3 + 4]])


@pytest.mark.parametrize("project", [nn.Identity(), nn.Linear(3, 4)])
def test_what_is_saved_is_read(tmp_path, project):
    side = ImageEncoder(Standardiser.of(FEATURES), project)
    side.save(tmp_path, WRITTEN)
    again, source = load_image_encoder(tmp_path)
    assert source == WRITTEN
    np.testing.assert_array_equal(again(FEATURES), side(FEATURES))


def test_whitened_features_have_unit_variance_and_no_correlation(tmp_path):
    draws = np.random.default_rng(0)
    mixed = draws.normal(size=(500, 4)) @ draws.normal(size=(4, 4)) * [1, 10, 100, 1000]
    features = np.concatenate([mixed, np.full((500, 1), 7.0)], 1).astype(np.float32)
    whiten = Standardiser.whitening(features)
    found = whiten(features)
    assert found.shape == (500, whiten.dim)
    varying = found[:, :4]
    np.testing.assert_allclose(varying.T @ varying / 500, np.eye(4), atol=2e-3)
    # A constant says nothing, and its rounding is not blown up.
    assert np.abs(found[:, 4:]).max(initial=0) < 1e-2
    np.testing.assert_array_equal(Standardiser.whitening(features)(features), found)
    side = ImageEncoder(whiten, nn.Linear(whiten.dim, 3))
    side.save(tmp_path, WRITTEN)
    again, _ = load_image_encoder(tmp_path)
    assert (again.dim, again.standardise.dim) == (3, whiten.dim)
    np.testing.assert_array_equal(again(features), side(features))


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_whitening_is_the_same_on_any_number_of_threads(threads):
    features = np.random.default_rng(0).normal(size=(1500, 700)).astype(np.float32)
    captions = np.random.default_rng(1).normal(size=(1500, 300)).astype(np.float32)
    rows = [[i] for i in range(1500)]
    found = []
    for count in (1, 2):
        threads(count)
        with threadpool_limits(count):
            whiten = Standardiser.whitening(features)
            read = canonical_whitening(captions, rows, features)
            found.append((whiten.components, whiten(features), read.mean, read.matrix))
        assert torch.get_num_threads() == count
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_damaged_or_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{IMAGE_ENCODER_FILE}: cannot be read"):
        load_image_encoder(tmp_path)
    ImageEncoder(Standardiser.of(FEATURES), nn.Linear(3, 4)).save(tmp_path, {})
    data = (tmp_path / IMAGE_ENCODER_FILE).read_bytes()
    (tmp_path / IMAGE_ENCODER_FILE).write_bytes(data[:-5])
    with pytest.raises(UserError, match=f"{IMAGE_ENCODER_FILE}: cannot be read"):
        load_image_encoder(tmp_path)
