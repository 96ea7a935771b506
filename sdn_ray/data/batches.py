"""Training batches: prepared pixels and caption embeddings, ready before the device asks."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdn_ray.data.sampling import draw_captions, draw_flips, epoch_permutation, worker_batches

_SAMPLE, _SAMPLE_BATCH = 1024, 64  # captions


@dataclass(frozen=True)
class EncodedImages:
    """Images with their captions' embeddings; the arrays may be memory-mapped."""

    images: np.ndarray  # (all images, height, width, 3) uint8
    embeddings: np.ndarray  # (distinct captions, embedding_dim) float32
    caption_rows: np.ndarray  # (all images, most captions) rows of `embeddings`
    caption_counts: np.ndarray  # (all images,) captions of each image
    indices: np.ndarray  # (n,) which of the images these are

    def __len__(self) -> int:
        return len(self.indices)

    def first_captions(self) -> np.ndarray:
        """The embedding of every image's first caption: (n, embedding_dim)."""
        return self.embeddings[self.caption_rows[self.indices, 0]]


@dataclass(frozen=True)
class Batch:
    """What one step sees."""

    images: Tensor  # (batch, 3, height, width) uint8, channels last in memory
    embeddings: Tensor  # (batch, embedding_dim) float32


class EpochBatches:
    """The batches of one worker in one epoch, loaded by a thread ahead of the steps.

    The order, the caption and the flip of an image depend on (seed, epoch, image) alone, so the
    global batches are the same for any number of workers. The last partial batch is dropped.
    """

    def __init__(
        self,
        data: EncodedImages,
        *,
        batch_size: int,
        seed: int,
        flips: bool,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.data, self.batch_size, self.seed, self.flips = data, batch_size, seed, flips
        self.rank, self.world_size, self.device = rank, world_size, torch.device(device)

    def __len__(self) -> int:
        return len(self.data) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from step ``start`` on."""
        permutation = epoch_permutation(self.seed, epoch, len(self.data))
        steps = worker_batches(permutation, self.batch_size, self.rank, self.world_size)[start:]
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            ahead = [pool.submit(self._load, epoch, step) for step in steps[:2]]
            for step in [*steps[2:], None, None][: len(steps)]:
                batch = ahead.pop(0).result()
                if step is not None:
                    ahead.append(pool.submit(self._load, epoch, step))
                yield batch

    def caption_batches(self) -> Iterator[Tensor]:
        """Embeddings of a fixed sample of captions, at most 1,024 in batches of 64.

        The sample is the same for every worker and at every time.
        """
        members = epoch_permutation(self.seed, 0, len(self.data))[:_SAMPLE]
        where = self.data.indices[members]
        drawn = draw_captions(self.seed, 0, members, self.data.caption_counts[where])
        embeddings = self.data.embeddings[self.data.caption_rows[where, drawn]]
        # Batches of one size: each counts as much as any other.
        batches = max(1, len(embeddings) // _SAMPLE_BATCH)
        for part in np.array_split(embeddings, batches):
            yield self._to_device(part)

    def _load(self, epoch: int, members: np.ndarray) -> Batch:
        where = self.data.indices[members]
        images = self.data.images[where]
        if self.flips:
            flipped = draw_flips(self.seed, epoch, members)
            images[flipped] = images[flipped, :, ::-1]
        drawn = draw_captions(self.seed, epoch, members, self.data.caption_counts[where])
        embeddings = self.data.embeddings[self.data.caption_rows[where, drawn]]
        return Batch(self._to_device(images).permute(0, 3, 1, 2), self._to_device(embeddings))

    def _to_device(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor
