"""From stored pixels to the teacher's normalised input space and back."""

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device).view(1, 3, 1, 1)


def normalise(images: Tensor) -> Tensor:
    """uint8 RGB (batch, 3, height, width) to float32, less the ImageNet mean, over its std."""
    scale = 1 / (255 * _channels(IMAGENET_STD, images))
    shift = _channels(IMAGENET_MEAN, images) / _channels(IMAGENET_STD, images)
    return images.to(torch.float32) * scale - shift


def to_uint8(images: Tensor) -> Tensor:
    """The inverse of `normalise`, rounded and clipped: (batch, 3, height, width) to uint8 RGB."""
    unit = images.float() * _channels(IMAGENET_STD, images) + _channels(IMAGENET_MEAN, images)
    return (unit * 255).round().clamp(0, 255).to(torch.uint8)
