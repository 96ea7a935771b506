import numpy as np
import torch

from sdn_ray.models.pixels import normalise, to_uint8

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def every_value():
    """(4, 3, 8, 8) uint8 in which each channel takes all 256 values."""
    values = np.stack([np.random.default_rng(c).permutation(256) for c in range(3)])
    return values.reshape(3, 4, 8, 8).swapaxes(0, 1).astype(np.uint8)


def test_normalise_is_imagenets():
    images = every_value()
    expected = (images / 255 - MEAN.reshape(1, 3, 1, 1)) / STD.reshape(1, 3, 1, 1)
    found = normalise(torch.from_numpy(images))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=2e-6)


def test_to_uint8_undoes_normalise():
    images = torch.from_numpy(every_value())
    assert torch.equal(to_uint8(normalise(images)), images)


def test_to_uint8_rounds_and_clips():
    unit = torch.tensor([-0.3, 0.0, 0.4 / 255, 0.6 / 255, 254.7 / 255, 7.0]).view(1, 1, 2, 3)
    mean, std = (torch.tensor(values).float().view(1, 3, 1, 1) for values in (MEAN, STD))
    found = to_uint8((unit - mean) / std)
    assert found.dtype == torch.uint8
    assert found[0].flatten(1).tolist() == [[0, 0, 0, 1, 255, 255]] * 3
