import numpy as np
import torch

from sdn_ray.models.image_features import pooled_features
from sdn_ray.models.pixels import normalise
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher


def test_every_layers_spatial_means_side_by_side():
    torch.manual_seed(0)
    teacher = Teacher(Plan.parse("4,M,6"))
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    batches = []
    found = pooled_features(teacher, images, 2, on_batch=lambda *counts: batches.append(counts))
    rows = []
    for image in images:
        layers = teacher(normalise(torch.from_numpy(image).permute(2, 0, 1)[None]))
        rows.append(np.concatenate([layer[0].numpy().mean((1, 2)) for layer in layers]))
    assert found.dtype == np.float32
    assert found.shape == (5, 10)
    np.testing.assert_allclose(found, np.stack(rows), rtol=1e-5, atol=1e-6)
    assert batches == [(2, 5), (4, 5), (5, 5)]


def test_layout_adds_the_means_of_the_last_maps_parts():
    torch.manual_seed(0)
    teacher = Teacher(Plan.parse("4,M,6,5"))
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    plain = pooled_features(teacher, images)
    found = pooled_features(teacher, images, layout=True)
    assert found.shape == (3, 4 + 6 + 5 + 16 * (6 + 5))
    np.testing.assert_array_equal(found[:, :15], plain)
    layers = teacher(normalise(torch.from_numpy(images).permute(0, 3, 1, 2)))
    parts = [
        layer.detach().numpy().reshape(3, -1, 4, 2, 4, 2).mean((3, 5)).reshape(3, -1)
        for layer in layers[-2:]
    ]
    np.testing.assert_allclose(found[:, 15:], np.concatenate(parts, 1), rtol=1e-5, atol=1e-6)
