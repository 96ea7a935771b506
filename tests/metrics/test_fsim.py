import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter

from sdn_ray.errors import UserError
from sdn_ray.metrics.fsim import fsim, fsim_values


def random_images(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def kovesi_filters(height: int, width: int) -> np.ndarray:
    """Log-Gabor filters (orientation, scale, height, width), zero frequency in the corner."""

    def axis(length: int) -> np.ndarray:
        if length % 2:
            return np.arange(-(length - 1) / 2, length / 2) / (length - 1)
        return np.arange(-length / 2, length / 2) / length

    row, column = np.meshgrid(axis(height), axis(width), indexing="ij")
    radius, angle = (
        np.fft.ifftshift(part) for part in (np.hypot(row, column), np.arctan2(-row, column))
    )
    low_pass = 1 / (1 + (radius / 0.45) ** 30)
    radius[0, 0] = 1
    filters = np.empty((4, 4, height, width))
    for orientation in range(4):
        turned = angle - orientation * np.pi / 4
        distance = np.abs(np.arctan2(np.sin(turned), np.cos(turned)))
        spread = np.exp(-(distance**2) / (2 * (np.pi / 4 / 1.2) ** 2))
        for scale in range(4):
            wavelength = 6 * 2**scale
            log_gabor = np.exp(-(np.log(radius * wavelength) ** 2) / (2 * np.log(0.55) ** 2))
            log_gabor[0, 0] = 0
            filters[orientation, scale] = log_gabor * low_pass * spread
    return filters


def phase_congruency(luminance: np.ndarray) -> np.ndarray:
    """Kovesi's phasecong2 as the authors of FSIM call it: the sum over all orientations."""
    energy_of_all, amplitude_of_all = np.zeros((2, *luminance.shape))
    spectrum = np.fft.fft2(luminance)
    for filters in kovesi_filters(*luminance.shape):
        responses = np.fft.ifft2(spectrum * filters)
        total = responses.sum(axis=0)
        direction = total / (np.abs(total) + 1e-4)
        along = (responses * direction.conj()).real
        across = (responses * direction.conj()).imag
        energy = (along - np.abs(across)).sum(axis=0)

        noise_power = np.median(np.abs(responses[0]) ** 2) / -np.log(0.5) / (filters[0] ** 2).sum()
        impulses = np.fft.ifft2(filters).real * np.sqrt(luminance.size)
        # Σ_s A_s² + 2 Σ_{s<t} A_s A_t is the square of the sum over the scales.
        noise_energy2 = 2 * noise_power * (impulses.sum(axis=0) ** 2).sum()
        tau = np.sqrt(noise_energy2 / 2)
        threshold = tau * np.sqrt(np.pi / 2) + 2.0 * np.sqrt((2 - np.pi / 2) * tau**2)
        energy_of_all += np.maximum(energy - threshold / 1.7, 0)
        amplitude_of_all += np.abs(responses).sum(axis=0)
    return energy_of_all / amplitude_of_all


def zhang(real: np.ndarray, generated: np.ndarray) -> float:
    """Zhang et al. 2011, FSIM on luminance, written from the paper and its MATLAB code."""

    def maps(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        luminance = image @ np.array([0.299, 0.587, 0.114])
        factor = max(1, round(min(luminance.shape) / 256))
        if factor > 1:  # the mean of each block; the sizes tested are multiples of the factor
            height, width = (length // factor for length in luminance.shape)
            luminance = luminance.reshape(height, factor, width, factor).mean(axis=(1, 3))
        scharr = np.outer([3, 10, 3], [1, 0, -1]) / 16
        dx, dy = (convolve(luminance, kernel, mode="constant") for kernel in (scharr, scharr.T))
        return phase_congruency(luminance), np.hypot(dx, dy)

    (pc1, g1), (pc2, g2) = maps(real), maps(generated)
    s_pc = (2 * pc1 * pc2 + 0.85) / (pc1**2 + pc2**2 + 0.85)
    s_g = (2 * g1 * g2 + 160) / (g1**2 + g2**2 + 160)
    weight = np.maximum(pc1, pc2)
    return float((s_pc * s_g * weight).sum() / weight.sum())


@pytest.fixture(scope="module")
def photographs(material) -> np.ndarray:
    return material.photographs(12)


def blurred(image: np.ndarray) -> np.ndarray:
    return gaussian_filter(image, (2, 2, 0))


def noisy(image: np.ndarray) -> np.ndarray:
    noise = 25 * np.random.default_rng(0).standard_normal(image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8)


def darker(image: np.ndarray) -> np.ndarray:
    return image // 3


def test_equals_a_second_implementation_on_photographs(photographs):
    expected = [zhang(a, b) for a, b in zip(photographs, photographs[::-1], strict=True)]
    measured = [fsim(a, b) for a, b in zip(photographs, photographs[::-1], strict=True)]
    assert 0.4 < min(expected) < max(expected) < 0.75
    np.testing.assert_allclose(measured, expected, atol=1e-4)


@pytest.mark.parametrize("distort", [blurred, noisy, darker])
def test_equals_a_second_implementation_on_distorted_photographs(photographs, distort):
    expected = [zhang(image, distort(image)) for image in photographs[:4]]
    measured = [fsim(image, distort(image)) for image in photographs[:4]]
    assert 0.5 < min(expected) < max(expected) < 0.99
    np.testing.assert_allclose(measured, expected, atol=1e-4)


@pytest.mark.parametrize("size", [(63, 51), (40, 64), (33, 12), (512, 514)])
def test_equals_a_second_implementation_at_other_sizes(photographs, size):
    height, width = size
    real, other = (
        np.asarray(Image.fromarray(image).resize((width, height))) for image in photographs[:2]
    )
    assert fsim(real, other) == pytest.approx(zhang(real, other), abs=1e-3)


def test_an_image_is_like_itself(photographs):
    assert fsim(photographs[0], photographs[0]) == pytest.approx(1, abs=1e-6)
    odd = random_images(0, 15, 21, 3)
    assert fsim(odd, odd) == pytest.approx(1, abs=1e-6)


def test_constant_images_give_a_finite_number(photographs):
    grey = np.full_like(photographs[0], 128)
    assert fsim(grey, grey) == pytest.approx(1, abs=1e-6)
    assert 0 < fsim(photographs[0], grey) < 0.5


def test_either_image_may_be_the_real_one(photographs):
    forth, back = fsim(photographs[0], photographs[1]), fsim(photographs[1], photographs[0])
    assert forth == pytest.approx(back, abs=1e-6)


def test_a_batch_gives_what_its_pairs_give_one_by_one(photographs):
    expected = [fsim(a, b) for a, b in zip(photographs, photographs[::-1], strict=True)]
    np.testing.assert_allclose(fsim_values(photographs, photographs[::-1]), expected, atol=1e-6)


def test_a_pair_without_a_partner():
    with pytest.raises(ValueError, match="2 real images but 1 generated"):
        fsim_values(random_images(0, 2, 16, 16, 3), random_images(1, 1, 16, 16, 3))


def test_images_of_two_sizes():
    with pytest.raises(UserError, match=r"\(16, 16, 3\), the generated one \(16, 12, 3\)"):
        fsim(random_images(0, 16, 16, 3), random_images(1, 16, 12, 3))


def test_images_too_small_to_filter():
    with pytest.raises(UserError, match="2x2 pixels, found 1x16"):
        fsim(random_images(0, 1, 16, 3), random_images(1, 1, 16, 3))
