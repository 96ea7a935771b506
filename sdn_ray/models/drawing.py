"""From embeddings to pixels with a trained generator."""

from collections.abc import Iterator

import numpy as np
import torch

from sdn_ray.models.generator import Generator
from sdn_ray.models.pixels import to_uint8


@torch.no_grad()
def draw_images(
    generator: Generator, embeddings: np.ndarray, batch_size: int = 64
) -> Iterator[np.ndarray]:
    """One image for each embedding, in batches of (batch, height, width, 3) uint8.

    In diverse synthesis image i is sample i mod n. The generator's mode is restored at the end.

    Args:
        generator: on any device.
        embeddings: (n, embedding_dim) float32.
        batch_size: images a forward pass.
    """
    training = generator.training
    device = next(generator.parameters()).device
    generator.eval()
    try:
        for start in range(0, len(embeddings), batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(embeddings[start : start + batch_size]))
            images = generator(batch.to(device)).images
            places = torch.arange(len(images), device=device)
            chosen = images[places, (start + places) % generator.samples]
            yield to_uint8(chosen).permute(0, 2, 3, 1).cpu().numpy()
    finally:
        generator.train(training)
