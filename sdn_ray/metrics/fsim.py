"""FSIM of Zhang et al. 2011 on luminance, the non-chromatic form, by piq."""

import numpy as np
import torch

from sdn_ray.errors import UserError

_SMALLEST = 2  # pixels: a single row or column has no frequencies to filter
# Pixels compared at once: the 16 filter responses of a larger batch fall out of the cache, and
# would take gigabytes for 64 images of 224×224.
_PIXELS = 1 << 15


def fsim(real: np.ndarray, generated: np.ndarray) -> float:
    """FSIM of two uint8 images (height, width, 3), on their luminance.

    As the authors define it, an image whose smaller side is 384 pixels or more is first averaged
    down to about 256. The definition leaves open what a constant image scores (it has no phase to
    be congruent); piq's number for it is finite, and 1 for two constant images that are equal.

    Raises:
        UserError: the images differ in size, or are smaller than 2×2 pixels.
    """
    return float(fsim_values(real[None], generated[None])[0])


def fsim_values(real: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """FSIM of each pair, (batch,) float64, of two uint8 arrays (batch, height, width, 3).

    Raises:
        UserError: as :func:`fsim`.
    """
    if len(real) != len(generated):
        raise ValueError(f"{len(real)} real images but {len(generated)} generated ones")
    if real.shape[1:] != generated.shape[1:]:
        raise UserError(
            f"FSIM compares images of one size: the real image is {real.shape[1:]}, "
            f"the generated one {generated.shape[1:]} (height, width, channels)"
        )
    height, width = real.shape[1:3]
    if min(height, width) < _SMALLEST:
        raise UserError(
            f"FSIM needs images of at least {_SMALLEST}x{_SMALLEST} pixels, found {height}x{width}"
        )
    # Imported where it is needed: it brings torchvision's models along, which takes seconds.
    import piq

    values = np.empty(len(real))
    step = max(1, _PIXELS // (height * width))
    for start in range(0, len(real), step):
        part = slice(start, start + step)
        x, y = (
            torch.from_numpy(np.array(images[part])).permute(0, 3, 1, 2) / 255
            for images in (real, generated)
        )
        values[part] = piq.fsim(x, y, chromatic=False, data_range=1.0, reduction="none").numpy()
    return values
