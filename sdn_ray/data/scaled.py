"""Images in [−1, 1], as GANs see them, and smaller ones that a first stage is trained on.

Smaller ones are made once and kept: a step of such a stage is so short that reading whole images
and making them smaller took a sixth of its time.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_AT_ONCE = 16  # images that are in memory


def scaled(images: Tensor) -> Tensor:
    """Bytes to [−1, 1]."""
    return images.float() / 127.5 - 1


def smaller_images(images: np.ndarray, side: int) -> np.ndarray:
    """Images made smaller by bicubic filtering, as they are and mirrored.

    A mirrored image is made smaller by itself: its sums run the other way and round differently.

    Args:
        images: (n, height, width, 3) uint8.
        side: height and width of smaller ones.

    Returns:
        (2, n, side, side, 3) float32 in [−1, 1].
    """
    return np.stack([_smaller(images, side), _smaller(images[:, :, ::-1], side)])


def write_smaller(
    images: np.ndarray,
    side: int,
    path: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """`smaller_images` of an array that may be larger than the memory, as a .npy file.

    Args:
        images: (n, height, width, 3) uint8, which may be memory-mapped.
        side: height and width of smaller ones.
        path: of the file.
        on_progress: told how many of the images are done.
    """
    shape = (2, len(images), side, side, 3)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, len(images), _AT_ONCE):
        part = images[start : start + _AT_ONCE]
        array[:, start : start + len(part)] = smaller_images(part, side)
        on_progress(start + len(part), len(images))
    array.flush()


def _smaller(images: np.ndarray, side: int) -> np.ndarray:
    pixels = torch.from_numpy(np.array(images, order="C")).permute(0, 3, 1, 2)
    smaller = functional.interpolate(scaled(pixels), (side, side), mode="bicubic", antialias=True)
    return smaller.clamp(-1, 1).permute(0, 2, 3, 1).numpy()
