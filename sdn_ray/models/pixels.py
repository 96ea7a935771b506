"""From stored pixels to the teacher's normalised input space and back."""

from functools import cache

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _new_mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return mean, std


@cache
def _kept_mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """Made once a device: numbers that go to a GPU wait for all that it has to do."""
    with torch.inference_mode(False):  # later uses may need gradients
        return _new_mean_and_std(device)


def _mean_and_std(like: Tensor) -> tuple[Tensor, Tensor]:
    """Each (1, 3, 1, 1) float32."""
    if torch.compiler.is_compiling():  # in a graph they are constants
        return _new_mean_and_std(like.device)
    return _kept_mean_and_std(like.device)


def normalise(images: Tensor) -> Tensor:
    """uint8 RGB (batch, 3, height, width) to float32, less the ImageNet mean, over its std."""
    mean, std = _mean_and_std(images)
    return images.to(torch.float32) * (1 / (255 * std)) - mean / std


def to_uint8(images: Tensor) -> Tensor:
    """The inverse of `normalise`, rounded and clipped: (batch, 3, height, width) to uint8 RGB."""
    mean, std = _mean_and_std(images)
    unit = images.float() * std + mean
    return (unit * 255).round().clamp(0, 255).to(torch.uint8)
