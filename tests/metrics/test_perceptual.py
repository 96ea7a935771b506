import numpy as np
import pytest

from sdn_ray.metrics.perceptual import PerceptualDistance
from sdn_ray.models.pixels import IMAGENET_MEAN, IMAGENET_STD
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher


@pytest.fixture
def teacher():
    return Teacher(Plan.parse("3,M,5"))


def pixels(seed, count=6):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def convolve(x, weight, bias):
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(x), len(weight), *x.shape[2:]))
    for row in range(3):
        for column in range(3):
            window = padded[:, :, row : row + x.shape[2], column : column + x.shape[3]]
            out += np.einsum("bihw,oi->bohw", window, weight[:, :, row, column])
    return np.maximum(out + bias[:, None, None], 0)


def features_by_hand(teacher, images):
    first, second = (
        (layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy())
        for layer in (teacher.features[0], teacher.features[3])
    )
    x = (images / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    one = convolve(x.transpose(0, 3, 1, 2), *first)
    pooled = one.reshape(*one.shape[:2], 4, 2, 4, 2).max((3, 5))
    return one, convolve(pooled, *second)


def test_against_numpy(teacher):
    real, generated = pixels(0), pixels(1)
    distance = PerceptualDistance(teacher)
    distance.update(real[:4], generated[:4])
    distance.update(real[4:], generated[4:])
    ratios = [
        np.abs(r - s).sum() / np.abs(r).sum()
        for r, s in zip(
            features_by_hand(teacher, real), features_by_hand(teacher, generated), strict=True
        )
    ]
    assert distance.compute() == pytest.approx(np.mean(ratios), rel=1e-5)


def test_equal_images_have_no_distance(teacher):
    distance = PerceptualDistance(teacher)
    distance.update(pixels(0), pixels(0))
    assert distance.compute() == 0
