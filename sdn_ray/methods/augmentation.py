"""Differentiable augmentation of what a discriminator sees.

Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training" (NeurIPS 2020): colour,
translation and cut-out, of real and of drawn images alike, so that the discriminator cannot learn
few photographs by heart. Generated images pass through it with their gradient.
"""

import torch
from torch import Tensor
from torch.nn import functional

DRAWS = 7  # normal numbers for each image
_BRIGHTNESS = 1.0  # added or taken away at most: about ±0.5 where pixels are in [−1, 1]
_SATURATION, _CONTRAST = (0.0, 2.0), (0.5, 1.5)
_SHIFT = 1 / 8  # of the side, at most
_HOLE = 1 / 2  # side of what is cut out, of the image's


def augmented(images: Tensor, normals: Tensor) -> Tensor:
    """Each image in other light, moved, and with a hole.

    Args:
        images: normalised (batch, 3, height, width); the mean colour is 0.
        normals: N(0, 1), (batch, `DRAWS`): what is done to each.

    Returns:
        (batch, 3, height, width), float32 where they were.
    """
    uniform = torch.special.ndtr(normals)
    return _cut_out(_shifted(_lit(images, uniform[:, :3]), uniform[:, 3:5]), uniform[:, 5:7])


def _lit(images: Tensor, uniform: Tensor) -> Tensor:
    brightness, saturation, contrast = uniform[:, :, None, None, None].unbind(1)
    images = images + _BRIGHTNESS * (2 * brightness - 1)
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, _between(_SATURATION, saturation))
    mean = images.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, _between(_CONTRAST, contrast))


def _between(limits: tuple[float, float], uniform: Tensor) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * uniform


def _shifted(images: Tensor, uniform: Tensor) -> Tensor:
    """Moved by whole pixels; what comes in from outside is the mean colour."""
    height, width = images.shape[2:]
    most = round(height * _SHIFT), round(width * _SHIFT)
    padded = functional.pad(images, (most[1], most[1], most[0], most[0]))
    across = _places(uniform[:, 0], most[0], height), _places(uniform[:, 1], most[1], width)
    rows = torch.arange(len(images), device=images.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[rows, across[0][:, :, None], across[1][:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _places(uniform: Tensor, most: int, side: int) -> Tensor:
    """The rows or columns of a padded image that each image becomes: (batch, side)."""
    start = (uniform * (2 * most + 1)).long().clamp_max(2 * most)
    return start[:, None] + torch.arange(side, device=uniform.device)


def _cut_out(images: Tensor, uniform: Tensor) -> Tensor:
    """A square of the mean colour, its middle anywhere."""
    masks = []
    for place, side in zip(uniform.unbind(1), images.shape[2:], strict=True):
        middle = place[:, None] * side
        pixel = torch.arange(side, device=images.device) + 0.5
        masks.append((pixel - middle).abs() <= side * _HOLE / 2)
    hole = masks[0][:, None, :, None] & masks[1][:, None, None, :]
    return images * ~hole
