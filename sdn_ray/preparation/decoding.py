"""Images decoded and resized by Ray Data, from their own files or through its readers of shards."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray.data

from sdn_ray.data.decoding import decode_batch, decode_contents
from sdn_ray.data.readers.webdataset import IMAGE_SUFFIXES
from sdn_ray.data.shards import IMAGE, TAR, in_shard, member_path
from sdn_ray.errors import UserError

_BATCH = 64  # images
Batch = dict[str, np.ndarray]  # row, image and error, see `decode_batch`


def decoded(paths: Sequence[Path], image_size: int) -> Iterator[Batch]:
    """All images of a data set, in any order; ``row`` is an image's place among ``paths``.

    Args:
        paths: of images that all have files of their own, or that all lie in shards of one kind.
        image_size: height and width of the result.

    Raises:
        UserError: shards have changed since they were listed.
    """
    return (_of_shards if in_shard(paths[0]) else _of_files)(paths, image_size)


def _of_files(paths: Sequence[Path], image_size: int) -> Iterator[Batch]:
    rows = ray.data.from_items(
        [{"row": row, "path": str(path)} for row, path in enumerate(paths)],
        override_num_blocks=max(1, len(paths) // 512),
    )
    images = rows.map_batches(partial(decode_batch, image_size=image_size), batch_size=_BATCH)
    yield from images.iter_batches(batch_size=None, batch_format="numpy")


def _of_shards(paths: Sequence[Path], image_size: int) -> Iterator[Batch]:
    places, shards = _places(paths)
    of_tar = next(iter(shards)).endswith(TAR)
    # Parquet's rows are known by their order alone.
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    contents = (_read_tars if of_tar else _read_parquet)(list(shards))
    images = contents.map_batches(
        partial(decode_contents, image_size=image_size), batch_size=_BATCH, batch_format="pyarrow"
    )
    seen: Counter[str] = Counter()
    found = 0
    for batch in images.iter_batches(batch_size=None, batch_format="numpy"):
        rows = []
        for path in batch["path"].tolist():
            rows.append(places.get(path if of_tar else f"{path}/{seen[path]}", -1))
            seen[path] += 1
        listed = np.array(rows) >= 0  # others were left out
        found += int(listed.sum())
        yield {"row": np.array(rows)[listed]} | {k: batch[k][listed] for k in ("image", "error")}
    if found < len(paths):
        raise UserError(
            f"{Path(next(iter(shards))).parent}: found {found} of the {len(paths)} images that its "
            "shards had when they were listed; expected files that stay as they are"
        )


def _places(paths: Sequence[Path]) -> tuple[dict[str, int], dict[str, None]]:
    """The place of each image by its member of an archive or its row, and the shards in order."""
    places: dict[str, int] = {}
    shards: dict[str, None] = {}
    for place, path in enumerate(paths):
        found = in_shard(path)
        assert found is not None
        shard, inside = found
        known = inside if shard.suffix == TAR else inside.parts[0]
        places[f"{shard}/{known}"] = place
        shards[str(shard)] = None
    return places, shards


def _read_parquet(shards: list[str]) -> ray.data.Dataset:
    # Without partitioning: a folder called class=rose says nothing of a column.
    rows = ray.data.read_parquet(shards, include_paths=True, partitioning=None)
    return rows.select_columns([IMAGE, "path"])


def _read_tars(shards: list[str]) -> ray.data.Dataset:
    return ray.data.read_webdataset(
        shards, suffixes=lambda suffix: suffix.lower() in IMAGE_SUFFIXES, decoder=_image_of
    )


def _image_of(sample: dict[str, Any]) -> dict[str, Any]:
    """The image of a sample, not decoded, and its path; nothing of one without an image."""
    key, shard = sample.pop("__key__"), sample.pop("__url__")
    for suffix, content in sample.items():
        return {"path": f"{shard}/{member_path(f'{key}.{suffix}')}", IMAGE: content}
    return {"path": "", IMAGE: b""}
