import numpy as np
import pytest

from sdn_ray.metrics.ssim import ssim
from sdn_ray.metrics.variety import MOST_PICTURES, is_compared, ssim_between_captions


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)


def test_all_pairs_of_different_captions_are_compared(images):
    a, b, c = images
    found = ssim_between_captions([("red", a), ("blue", b), ("red", c)])
    assert found == pytest.approx((ssim(a, b) + ssim(b, c)) / 2)  # not those of one caption


def test_one_picture_for_all_captions_is_1(images):
    assert ssim_between_captions([(f"caption {i}", images[0]) for i in range(4)]) == 1


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
