"""Prepared data: pixels and caption embeddings as arrays in a cache folder.

Workers memory-map them: no epoch decodes or encodes again, nor does the next run on the same data.
A cache entry is a folder named by a hash of what it was made from, written under a temporary name
and renamed, so a whole one or none.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sdn_ray.data.batches import EncodedImages
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.errors import UserError
from sdn_ray.files import fingerprint, making_folder, read_array


@dataclass(frozen=True)
class PreparedImages:
    """A data set whose images are an array."""

    key: str  # hash of contents and settings
    dataset: CaptionedDataset  # its rows are the array's, in order
    array_path: Path  # .npy, (rows, height, width, 3) uint8

    @property
    def cache(self) -> Path:
        """The folder of the cache that holds it, and all else that is made of it."""
        return self.array_path.parents[1]

    def members(self, class_ids: tuple[int, ...]) -> np.ndarray:
        """The rows of the array whose class is among ``class_ids``: (n,) int64."""
        wanted = set(class_ids)
        rows = self.dataset.rows
        return np.array([i for i, row in enumerate(rows) if row.class_id in wanted], dtype=np.int64)

    def images(self) -> np.ndarray:
        """The array, memory-mapped."""
        return read_array(self.array_path)


@dataclass(frozen=True)
class CaptionArrays:
    """Where the embeddings of a data set's captions stand; all paths are .npy files."""

    folder: Path

    def encoded(
        self,
        images: PreparedImages,
        class_ids: tuple[int, ...],
        locations: np.ndarray | None = None,
        smaller: Mapping[int, Path] | None = None,
    ) -> EncodedImages:
        """The images of some classes with their captions' embeddings, memory-mapped.

        Args:
            images: of the whole data set.
            class_ids: the classes.
            locations: of all images, see `EncodedImages`.
            smaller: files of all images made smaller, by their side.
        """
        return EncodedImages(
            images=images.images(),
            embeddings=read_array(self.folder / "embeddings.npy"),
            caption_rows=np.array(read_array(self.folder / "caption_rows.npy")),
            caption_counts=np.array(read_array(self.folder / "caption_counts.npy")),
            indices=images.members(class_ids),
            classes=np.array([row.class_id for row in images.dataset.rows]),
            locations=locations,
            smaller={side: read_array(path) for side, path in (smaller or {}).items()},
        )


def caption_arrays(images: PreparedImages, cache: Path, source: str) -> CaptionArrays:
    """Where the embeddings of a data set's captions belong, made or not.

    Args:
        images: whose captions.
        cache: folder of the cache.
        source: fingerprint of what embeds them.
    """
    captions = [row.captions for row in images.dataset.rows]
    return CaptionArrays(cache / f"captions-{fingerprint('captions', captions, source)}")


def store_captions(
    images: PreparedImages, arrays: CaptionArrays, embed: Callable[[list[str]], np.ndarray]
) -> None:
    """Embed every distinct caption of the data set once, and keep the arrays.

    Args:
        images: whose captions.
        arrays: where they go.
        embed: distinct captions to (captions, embedding_dim) float32.
    """
    captions = [row.captions for row in images.dataset.rows]
    distinct = list(dict.fromkeys(caption for group in captions for caption in group))
    place = {caption: row for row, caption in enumerate(distinct)}
    rows = [[place[caption] for caption in group] for group in captions]
    _write_caption_arrays(arrays.folder, embed(distinct), rows)


def store_precomputed(
    images: PreparedImages, cache: Path, source: Path, embeddings: dict[str, np.ndarray]
) -> CaptionArrays:
    """Keep precomputed embeddings, found by the stem of an image's file name.

    Raises:
        UserError: when an image has none or shares its stem, or their number is not that of its
            captions.
    """
    rows, parts, count = [], [], 0
    stems = Counter(row.image_path.stem for row in images.dataset.rows)
    for row in images.dataset.rows:
        if stems[row.image_path.stem] > 1:
            raise UserError(
                f"text.embeddings: {source} knows images by the stems of their names, and "
                f"{stems[row.image_path.stem]} are called {row.image_path.stem}; expected one each"
            )
        own = embeddings.get(row.image_path.stem)
        if own is None:
            raise UserError(f"text.embeddings: {source} has no embeddings of {row.image_path.stem}")
        if len(own) != len(row.captions):
            raise UserError(
                f"text.embeddings: {source} has {len(own)} embeddings of {row.image_path.stem}, "
                f"expected {len(row.captions)}, one a caption"
            )
        parts.append(own)
        rows.append(list(range(count, count + len(own))))
        count += len(own)
    array = np.concatenate(parts).astype(np.float32)
    digest = hashlib.blake2b(array.tobytes(), digest_size=10).hexdigest()
    folder = cache / f"captions-{fingerprint('precomputed', images.key, digest)}"
    if not folder.is_dir():
        _write_caption_arrays(folder, array, rows)
    return CaptionArrays(folder)


def _write_caption_arrays(folder: Path, embeddings: np.ndarray, rows: list[list[int]]) -> None:
    counts = np.array([len(row) for row in rows], dtype=np.int64)
    padded = np.full((len(rows), counts.max()), -1, dtype=np.int64)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    with making_folder(folder) as partial:
        np.save(partial / "embeddings.npy", embeddings)
        np.save(partial / "caption_rows.npy", padded)
        np.save(partial / "caption_counts.npy", counts)
