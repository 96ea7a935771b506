"""Training batches: prepared pixels and caption embeddings, ready before the device asks."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sdn_ray.data.sampling import (
    draw_captions,
    draw_flips,
    draw_several_captions,
    draw_wrong_rows,
    epoch_permutation,
    worker_batches,
)

_SAMPLE, _SAMPLE_BATCH = 1024, 64  # captions


@dataclass(frozen=True)
class EncodedImages:
    """Images with their captions' embeddings; the arrays may be memory-mapped."""

    images: np.ndarray  # (all images, height, width, 3) uint8
    embeddings: np.ndarray  # (distinct captions, embedding_dim) float32
    caption_rows: np.ndarray  # (all images, most captions) rows of `embeddings`
    caption_counts: np.ndarray  # (all images,) captions of each image
    indices: np.ndarray  # (n,) which of the images these are
    classes: np.ndarray | None = None  # (all images,) the class of each, where wrong ones are asked
    # Boxes (2, all images, 4) or parts (2, all images, n, 3), float32: of each image as it is, then
    # mirrored; where a stage asks for them.
    locations: np.ndarray | None = None
    # `smaller_images` of all images, by their side; where a stage asks for them.
    smaller: Mapping[int, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indices)

    def first_captions(self) -> np.ndarray:
        """The embedding of every image's first caption: (n, embedding_dim)."""
        return self.embeddings[self.caption_rows[self.indices, 0]]


@dataclass(frozen=True)
class Rows:
    """What the steps of a stage want to see of each image."""

    wrong: bool = False  # an image of another class beside it
    wrong_captions: bool = False  # a caption of an image of another class
    captions: int = 1  # whose embeddings are averaged; 1 is a caption as it is
    located: bool = False  # where things are on it, and on the wrong image
    images: bool = True  # its pixels
    side: int | None = None  # of images that are made smaller; else they are as prepared


@dataclass(frozen=True)
class Batch:
    """What one step sees."""

    # (batch, 3, height, width), channels last in memory: uint8, or float32 in [−1, 1] where `Rows`
    # asks for smaller ones; of no height and no width where it asks for none.
    images: Tensor
    embeddings: Tensor  # (batch, embedding_dim) float32
    # Each of another class, where `Rows` asks for them:
    wrong: Tensor | None = None  # as `images`
    wrong_embeddings: Tensor | None = None  # as `embeddings`
    # Where `Rows` asks for them, boxes (batch, 4) or parts (batch, n, 3) float32, as the images:
    locations: Tensor | None = None
    wrong_locations: Tensor | None = None


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

    def epoch(self, epoch: int, start: int = 0, rows: Rows = Rows()) -> Iterator[Batch]:
        """The batches of an epoch from step ``start`` on."""
        permutation = epoch_permutation(self.seed, epoch, len(self.data))
        steps = worker_batches(permutation, self.batch_size, self.rank, self.world_size)[start:]
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            ahead = [pool.submit(self._load, epoch, step, rows) for step in steps[:2]]
            for step in [*steps[2:], None, None][: len(steps)]:
                batch = ahead.pop(0).result()
                if step is not None:
                    ahead.append(pool.submit(self._load, epoch, step, rows))
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

    def _load(self, epoch: int, members: np.ndarray, rows: Rows) -> Batch:
        wrong = wrong_embeddings = locations = wrong_locations = None
        if rows.wrong or rows.wrong_captions:
            others = draw_wrong_rows(self.seed, epoch, members, self._classes())
            if rows.wrong:
                flipped = self._flips(epoch, members, of_wrong=True)
                wrong = self._images(others, flipped, rows)
                wrong_locations = self._locations(others, flipped) if rows.located else None
            if rows.wrong_captions:
                wrong_embeddings = self._embeddings(epoch, others, rows.captions)
        flipped = self._flips(epoch, members)
        images = self._images(members, flipped, rows)
        if rows.located:
            locations = self._locations(members, flipped)
        embeddings = self._embeddings(epoch, members, rows.captions)
        return Batch(images, embeddings, wrong, wrong_embeddings, locations, wrong_locations)

    def _classes(self) -> np.ndarray:
        if self.data.classes is None:
            raise ValueError("EncodedImages.classes: found none, expected those of the images")
        return self.data.classes[self.data.indices]

    def _locations(self, members: np.ndarray, flipped: np.ndarray | None) -> Tensor:
        if self.data.locations is None:
            raise ValueError("EncodedImages.locations: found none, expected those of the images")
        return self._as_turned(self.data.locations, members, flipped)

    def _as_turned(
        self, both: np.ndarray, members: np.ndarray, flipped: np.ndarray | None
    ) -> Tensor:
        """Of what is known of all images as they are and mirrored: (2, all images, …)."""
        turned = np.zeros(len(members), int) if flipped is None else flipped.astype(int)
        return self._to_device(both[turned, self.data.indices[members]])

    def _flips(
        self, epoch: int, members: np.ndarray, *, of_wrong: bool = False
    ) -> np.ndarray | None:
        """Which images are flipped; None where none are."""
        return draw_flips(self.seed, epoch, members, of_wrong=of_wrong) if self.flips else None

    def _images(self, members: np.ndarray, flipped: np.ndarray | None, rows: Rows) -> Tensor:
        if not rows.images:
            return self._to_device(np.empty((len(members), 3, 0, 0), np.uint8))
        if rows.side is not None:
            smaller = self.data.smaller.get(rows.side)
            if smaller is None:
                raise ValueError(f"EncodedImages.smaller: found none of side {rows.side}")
            return self._as_turned(smaller, members, flipped).permute(0, 3, 1, 2)
        images = self.data.images[self.data.indices[members]]
        if flipped is not None:
            images[flipped] = images[flipped, :, ::-1]
        return self._to_device(images).permute(0, 3, 1, 2)

    def _embeddings(self, epoch: int, members: np.ndarray, captions: int) -> Tensor:
        where = self.data.indices[members]
        counts = self.data.caption_counts[where]
        if captions == 1:
            drawn = draw_captions(self.seed, epoch, members, counts)
            return self._to_device(self.data.embeddings[self.data.caption_rows[where, drawn]])
        several = draw_several_captions(self.seed, epoch, members, counts, captions)
        rows = np.take_along_axis(self.data.caption_rows[where], several, axis=1)
        return self._to_device(self.data.embeddings[rows].mean(axis=1))

    def _to_device(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor
