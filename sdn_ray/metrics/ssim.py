"""SSIM with the window of Wang et al. 2004, by scikit-image."""

import numpy as np
from skimage.metrics import structural_similarity

from sdn_ray.errors import UserError

WINDOW = 11  # pixels: the Gaussian of 1.5 pixels, cut at 3.5 standard deviations


def ssim(real: np.ndarray, generated: np.ndarray) -> float:
    """SSIM of two uint8 images (height, width, 3): of each RGB channel on [0, 1], averaged.

    Raises:
        UserError: the images differ in size, or are smaller than the window of 11×11 pixels.
    """
    if real.shape != generated.shape:
        raise UserError(
            f"SSIM compares images of one size: the real image is {real.shape}, "
            f"the generated one {generated.shape} (height, width, channels)"
        )
    if min(real.shape[:2]) < WINDOW:
        raise UserError(
            f"SSIM needs images of at least {WINDOW}x{WINDOW} pixels, found "
            f"{real.shape[0]}x{real.shape[1]}"
        )
    return float(
        structural_similarity(
            real / 255.0,
            generated / 255.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=-1,
        )
    )


class MeanSSIM:
    """Mean SSIM over pairs of a real and a generated image, accumulated as a sum."""

    def __init__(self) -> None:
        self.pairs = 0
        self._sum = 0.0

    def update(self, real: np.ndarray, generated: np.ndarray) -> None:
        """Add pairs: two uint8 arrays (batch, height, width, 3).

        Raises:
            UserError: as :func:`ssim`.
        """
        for one_real, one_generated in zip(real, generated, strict=True):
            self._sum += ssim(one_real, one_generated)
            self.pairs += 1

    def compute(self) -> float:
        """The mean over all pairs.

        Raises:
            ValueError: there were none.
        """
        if not self.pairs:
            raise ValueError("no pairs of images to compare")
        return self._sum / self.pairs
