"""Fixed image features for training a text encoder: the teacher's, pooled."""

from collections.abc import Callable

import numpy as np
import torch

from sdn_ray.models.pixels import normalise
from sdn_ray.models.teacher import Teacher


@torch.no_grad()
def pooled_features(
    teacher: Teacher,
    images: np.ndarray,
    batch_size: int = 64,
    device: str = "cpu",
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """The spatial means of every layer's features, side by side: (n, sum of widths) float32.

    All layers, since captions speak of colours, which the low layers hold, as well as of shapes,
    which the high ones do.

    Args:
        teacher: frozen.
        images: (n, height, width, 3) uint8.
        batch_size: images a forward pass.
        device: where to compute.
        on_batch: called with (images done, images) after each pass.
    """
    teacher = teacher.to(device, memory_format=torch.channels_last)
    pooled = []
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
        features = teacher(normalise(batch.permute(0, 3, 1, 2).to(device)))
        pooled.append(torch.cat([feature.mean((2, 3)) for feature in features], 1).cpu().numpy())
        on_batch(min(start + batch_size, len(images)), len(images))
    return np.concatenate(pooled)
