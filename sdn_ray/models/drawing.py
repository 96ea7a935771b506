"""From embeddings to pixels with a trained generator."""

from collections.abc import Iterator

import numpy as np
import torch

from sdn_ray.models.generator import Generator
from sdn_ray.models.pixels import to_uint8


@torch.no_grad()
def draw_samples(
    generator: Generator, embeddings: np.ndarray, batch_size: int = 64
) -> Iterator[np.ndarray]:
    """All samples for each embedding, in batches of (batch, samples, height, width, 3) uint8.

    The generator's mode is restored at the end.

    Args:
        generator: on any device.
        embeddings: (n, embedding_dim) float32.
        batch_size: embeddings a forward pass.
    """
    training = generator.training
    device = next(generator.parameters()).device
    generator.eval()
    try:
        for start in range(0, len(embeddings), batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(embeddings[start : start + batch_size]))
            images = to_uint8(generator(batch.to(device)).images.flatten(0, 1))
            pixels = images.permute(0, 2, 3, 1).cpu().numpy()
            yield pixels.reshape(len(batch), generator.samples, *pixels.shape[1:])
    finally:
        generator.train(training)


def draw_images(
    generator: Generator, embeddings: np.ndarray, batch_size: int = 64
) -> Iterator[np.ndarray]:
    """One image for each embedding, in batches of (batch, height, width, 3) uint8.

    In diverse synthesis image i is sample i mod n. Arguments as in ``draw_samples``.
    """
    start = 0
    for samples in draw_samples(generator, embeddings, batch_size):
        places = np.arange(len(samples))
        yield samples[places, (start + places) % samples.shape[1]]
        start += len(samples)
