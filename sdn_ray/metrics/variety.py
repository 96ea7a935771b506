"""How alike the pictures of different captions are: whether one template stands for all."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from sdn_ray.metrics.ssim import ssim

MOST_PICTURES = 32  # of a set, spread over it: some 500 pairs


@dataclass(frozen=True)
class Picture:
    """A drawn image that is compared with those of other captions."""

    caption: str
    drawn: np.ndarray  # (height, width, 3) uint8
    real: np.ndarray  # the real image that the caption describes, at the same size


def is_compared(index: int, of_a_caption: int, images: int) -> bool:
    """Whether an image is among the pictures that are compared.

    Args:
        index: of the image in its set, the first of its caption's.
        of_a_caption: images that were drawn from the captions of one real image.
        images: of the whole set.
    """
    return index % max(1, -(-images // MOST_PICTURES)) < of_a_caption


@dataclass(frozen=True)
class SsimBetweenCaptions:
    """How alike pictures of different captions are; what real images have is what to aim at."""

    mean: float  # of all pairs; 1 is one picture for all captions
    nearest: float  # of the pair that is most alike: near 1 a shape that comes back


def ssim_between_captions(
    pictures: Sequence[tuple[str, np.ndarray]],
) -> SsimBetweenCaptions | None:
    """SSIM over all pairs of pictures of different captions and one size.

    A pair of captions that are worded alike is left out: the same picture for it is right.

    Args:
        pictures: a caption and (height, width, 3) uint8 each.

    Returns:
        None where there is no such pair.
    """
    values = [
        ssim(a, b)
        for (first, a), (second, b) in combinations(pictures, 2)
        if first != second and a.shape == b.shape
    ]
    return SsimBetweenCaptions(float(np.mean(values)), max(values)) if values else None


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean |a − b| of pixels in [0, 1], of two equally shaped uint8 arrays."""
    return float(np.abs(a.astype(np.float32) - b.astype(np.float32)).mean() / 255)
