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
