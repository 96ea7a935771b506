import numpy as np
import pytest

from sdn_ray.metrics.ssim import ssim
from sdn_ray.metrics.variety import (
    MOST_PICTURES,
    is_compared,
    mean_difference,
    ssim_between_captions,
)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)


def test_all_pairs_of_different_captions_are_compared(images):
    a, b, c = images
    found = ssim_between_captions([("red", a), ("blue", b), ("red", c)])
    assert found.mean == pytest.approx((ssim(a, b) + ssim(b, c)) / 2)  # not those of one caption
    assert found.nearest == max(ssim(a, b), ssim(b, c))


def test_one_picture_for_all_captions_is_1(images):
    assert ssim_between_captions([(f"caption {i}", images[0]) for i in range(4)]).mean == 1


def test_without_a_pair_there_is_no_figure(images):
    assert ssim_between_captions([]) is None
    assert ssim_between_captions([("red", images[0])]) is None
    assert ssim_between_captions([("red", images[0]), ("red", images[1])]) is None
    assert ssim_between_captions([("red", images[0]), ("blue", images[1][:11])]) is None


@pytest.mark.parametrize(("images", "each"), [(1, 1), (20, 1), (1711, 1), (30_000, 10), (64, 2)])
def test_the_compared_pictures_are_spread_over_the_set(images, each):
    chosen = [index for index in range(0, images, each) if is_compared(index, each, images)]
    real = -(-images // each)
    assert min(real, MOST_PICTURES) / 2 < len(chosen) <= MOST_PICTURES
    gaps = np.diff([*chosen, images])
    assert gaps.max() <= 2 * -(-images // MOST_PICTURES) + each


def test_the_mean_difference_is_of_pixels_from_0_to_1():
    a = np.array([[0, 255, 10], [7, 100, 200]], dtype=np.uint8)
    b = np.array([[255, 0, 10], [8, 90, 251]], dtype=np.uint8)
    assert mean_difference(a, b) == pytest.approx((255 + 255 + 0 + 1 + 10 + 51) / 6 / 255)
    assert mean_difference(a, a) == 0
    assert mean_difference(a, b) == mean_difference(b, a)
