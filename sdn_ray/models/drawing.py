"""From embeddings to pixels with a trained generator."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch

from sdn_ray.data.sampling import drawing_noise
from sdn_ray.errors import UserError
from sdn_ray.models.image_generators import ImageGenerator

BATCH = 128  # captions that are drawn at once; another number may round another way
MOST_STEPS = 200  # from one caption to another


class Draws(Protocol):
    """What a generator says of the pictures it can draw."""

    @property
    def samples(self) -> int:
        """Of a forward pass."""

    @property
    def noise_dim(self) -> int:
        """0: it takes no noise."""


def check_drawing(generator: Draws, samples: int, seed: int) -> None:
    """Refuse what a generator cannot draw.

    Raises:
        UserError: naming ``--samples`` or ``--seed``.
    """
    if seed < 0:
        raise UserError(f"--seed: found {seed}, expected at least 0")
    if generator.noise_dim:
        if samples < 1:
            raise UserError(f"--samples: found {samples}, expected at least 1")
        return
    if not 1 <= samples <= generator.samples:
        raise UserError(
            f"--samples: found {samples}, expected 1 to {generator.samples}, the samples that this "
            "model draws of each caption"
        )
    if seed:
        raise UserError(
            f"--seed: found {seed}, but this model takes no noise and draws the same images of a "
            "caption at every time; expected 0"
        )


def check_steps(steps: int) -> None:
    """Refuse too few or too many steps from one caption to another.

    Raises:
        UserError: naming ``--steps``.
    """
    if not 2 <= steps <= MOST_STEPS:
        raise UserError(f"--steps: found {steps}, expected 2 to {MOST_STEPS}")


@torch.no_grad()
def draw_samples(
    generator: ImageGenerator,
    embeddings: np.ndarray,
    *,
    samples: int | None = None,
    seed: int = 0,
    indices: np.ndarray | None = None,
    locations: np.ndarray | None = None,
    batch_size: int = 64,
) -> Iterator[np.ndarray]:
    """Samples for each embedding, in batches of (batch, samples, height, width, 3) uint8.

    The generator's mode is restored at the end.

    Args:
        generator: on any device.
        embeddings: (n, embedding_dim) float32.
        samples: images of each; None: those of one forward pass. A generator that takes noise draws
            as many as are asked for, another at most its own.
        seed: of the noise.
        indices: by which, with the seed, the noise of each is drawn, (n,) int64; None: 0 … n - 1.
        locations: of each, (n, 1, 4) boxes or (n, parts, 3), for a `GawwnGenerator`; None: it
            chooses them itself.
        batch_size: images a forward pass, about.
    """
    own = generator.samples if samples is None else samples
    indices = np.arange(len(embeddings)) if indices is None else indices
    training = generator.training
    device = next(generator.parameters()).device
    generator.eval()
    size = max(1, batch_size // own) if generator.noise_dim else batch_size
    try:
        for start in range(0, len(embeddings), size):
            part = np.ascontiguousarray(embeddings[start : start + size])
            batch = torch.from_numpy(part).to(device)
            if generator.noise_dim:
                drawn = drawing_noise(seed, indices[start : start + size], own, generator.noise_dim)
                noise = torch.from_numpy(drawn).to(device).flatten(0, 1)
                inputs = [batch.repeat_interleave(own, 0), noise]
                if locations is not None:
                    inputs.append(_repeated(locations[start : start + size], own).to(device))
                images = generator.pixels(*inputs)
                images = images.unflatten(0, (len(part), own))[:, :, 0]
            else:
                images = generator.pixels(batch)[:, :own]
            yield images.permute(0, 1, 3, 4, 2).cpu().numpy()
    finally:
        generator.train(training)


def _repeated(locations: np.ndarray, samples: int) -> torch.Tensor:
    """Those of each sample: boxes (batch, 4) or parts (batch, n, 3)."""
    own = torch.from_numpy(locations).repeat_interleave(samples, 0)
    return own[:, 0] if own.shape[-1] == 4 else own


def draw_images(
    generator: ImageGenerator, embeddings: np.ndarray, batch_size: int = 64
) -> Iterator[np.ndarray]:
    """One image for each embedding, in batches of (batch, height, width, 3) uint8.

    In diverse synthesis image i is sample i mod n. Arguments as in ``draw_samples``.
    """
    start = 0
    for samples in draw_samples(generator, embeddings, batch_size=batch_size):
        places = np.arange(len(samples))
        yield samples[places, (start + places) % samples.shape[1]]
        start += len(samples)


def draw_between(
    generator: ImageGenerator, first: np.ndarray, last: np.ndarray, steps: int, seed: int = 0
) -> list[np.ndarray]:
    """Images on the straight line between two embeddings (section 4.7, Figure 8).

    Args:
        generator: as in `draw_samples`.
        first: embedding of the first image, (embedding_dim,) float32.
        last: that of the last one.
        steps: images, at least two.
        seed: of the noise, which is the same throughout, since another would jump; as would another
            sample than the first, which is drawn.

    Returns:
        (height, width, 3) uint8 each.
    """
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    drawn = draw_samples(
        generator,
        (1 - share) * first + share * last,
        seed=seed,
        indices=np.zeros(steps, dtype=np.int64),
    )
    return [samples[0] for batch in drawn for samples in batch]
