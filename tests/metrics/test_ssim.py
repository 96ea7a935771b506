import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from sdn_ray.errors import UserError
from sdn_ray.metrics.ssim import MeanSSIM, ssim


def random_images(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def wang(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, eq. 13: one channel on [0, 1], windows of 11×11 that lie inside."""

    def mean(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, 1.5, truncate=3.5)[5:-5, 5:-5]

    c1, c2 = 0.01**2, 0.03**2
    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    ratio = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(ratio.mean())


def test_an_image_is_like_itself():
    image = random_images(0, 16, 20, 3)
    assert ssim(image, image) == pytest.approx(1, abs=1e-12)


def test_equals_wangs_formula():
    real = random_images(1, 24, 32, 3)
    generated = (0.7 * real + 0.3 * random_images(2, 24, 32, 3)).astype(np.uint8)
    expected = np.mean([wang(real[..., c] / 255, generated[..., c] / 255) for c in range(3)])
    assert 0.3 < expected < 0.97
    assert ssim(real, generated) == pytest.approx(expected, abs=1e-10)


def test_mean_over_pairs_streams():
    real, generated = random_images(3, 5, 16, 16, 3), random_images(4, 5, 16, 16, 3)
    expected = np.mean(
        [
            structural_similarity(
                a / 255,
                b / 255,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=1.0,
                channel_axis=-1,
            )
            for a, b in zip(real, generated, strict=True)
        ]
    )
    found = MeanSSIM()
    found.update(real[:3], generated[:3])
    found.update(real[3:], generated[3:])
    assert found.pairs == 5
    assert found.compute() == pytest.approx(expected, rel=1e-12)


def test_no_pairs():
    with pytest.raises(ValueError, match="no pairs"):
        MeanSSIM().compute()


def test_images_of_two_sizes():
    with pytest.raises(UserError, match=r"\(16, 16, 3\), the generated one \(16, 12, 3\)"):
        ssim(random_images(0, 16, 16, 3), random_images(1, 16, 12, 3))


def test_images_smaller_than_the_window():
    with pytest.raises(UserError, match="11x11 pixels, found 8x16"):
        ssim(random_images(0, 8, 16, 3), random_images(1, 8, 16, 3))
